"""What is refused stands in the run's diary, with the reason and how often, and only as much as there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated import server
from federated.protocol import (
    REASON_MAX_CHARS,
    ProgressLog,
    Refusal,
    Tensors,
    encode_message,
    read_progress,
)
from federated.refusals import FURTHER, KINDS_OF_A_SITE, KINDS_OF_STRANGERS, Refusals
from federated.server import MAX_MESSAGE_BYTES
from federated.trainer import AggregatorClient, AggregatorError
from tests.federated.conftest import RunGround
from tests.federated.test_aggregator import TOKENS, WORDS, LedRun, lead_run
from tests.federated.test_server import ask, request


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# -- The diary's part --------------------------------------------------------------------------------------------


def refusal(site: str = "food", **changes: Any) -> Refusal:
    fields = {"address": "", "round": 3, "status": 422, "reason": "不合", "at": time.time(), **changes}
    return Refusal(site=site, **fields)


def diary_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_kind_is_written_when_it_comes_and_whenever_its_count_has_doubled(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    refusals = Refusals(ProgressLog(path))
    for number in range(1, 101):
        refusals.note(refusal(round=number, at=float(number)))
    assert [entry["count"] for entry in diary_lines(path)] == [1, 2, 4, 8, 16, 32, 64]
    refusals.flush()
    refusals.flush()
    assert [entry["count"] for entry in diary_lines(path)][7:] == [100]
    (told,) = read_progress(path).refusals
    assert (told.count, told.round, told.at) == (100, 100, 100.0)


def test_kinds_are_counted_apart_and_the_latest_stands_first(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    refusals = Refusals(ProgressLog(path))
    stranger = refusal("", address="192.0.2.7", status=401, reason="no site has this token")
    for one in (refusal(), stranger, refusal("books"), refusal(status=409), refusal()):
        refusals.note(one)
    told = [(one.site, one.address, one.status, one.count) for one in read_progress(path).refusals]
    assert told == [
        ("food", "", 422, 2),
        ("food", "", 409, 1),
        ("books", "", 422, 1),
        ("", "192.0.2.7", 401, 1),
    ]


def test_an_aggregator_that_is_started_again_goes_on_counting(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    for _ in range(4):
        refusals = Refusals(ProgressLog(path))
        refusals.note(refusal())
        refusals.flush()
    assert [entry["count"] for entry in diary_lines(path)] == [1, 2, 3, 4]


def test_kinds_without_end_are_counted_together_and_take_no_room_from_others(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    refusals = Refusals(ProgressLog(path))
    for number in range(5000):
        refusals.note(refusal("food", reason=f"round {number} has not begun"))
        refusals.note(refusal("", address=f"2001:db8::{number:x}", status=401))
    refusals.note(refusal("books", reason="its own"))
    refusals.flush()
    told = read_progress(path).refusals
    assert len(told) == KINDS_OF_A_SITE + 1 + KINDS_OF_STRANGERS + 1 + 1
    rest = {one.site: (one.address, one.count) for one in told if one.reason == FURTHER}
    assert rest == {"food": ("", 5000 - KINDS_OF_A_SITE), "": ("", 5000 - KINDS_OF_STRANGERS)}
    assert any((one.site, one.reason) == ("books", "its own") for one in told)
    assert len(diary_lines(path)) < 100


def test_a_diary_that_cannot_be_written_is_no_reason_not_to_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Refusals(ProgressLog(tmp_path / "gone" / "progress.jsonl")).note(refusal())
    assert "the diary cannot be written" in caplog.text


# -- A run that much is refused of -------------------------------------------------------------------------------


def address_of(run: LedRun) -> tuple[str, int]:
    return run.http.base_url.host, run.http.base_url.port or 0


async def ask_plainly(run: LedRun, content: bytes) -> tuple[int, bytes]:
    return await asyncio.to_thread(ask, address_of(run), content)


def find(run: LedRun, status: int, site: str = "") -> list[Refusal]:
    return [one for one in run.status().refusals if (one.status, one.site) == (status, site)]


async def offend(run: LedRun, zero: Tensors) -> Counter[tuple[str, int, str]]:
    """Do all that is refused in round 1; counts sites, statuses and reasons as they were answered."""

    def fill(value: float) -> Tensors:
        return {name: np.full_like(array, value) for name, array in zero.items()}

    answered: Counter[tuple[str, int, str]] = Counter()
    bias = "output.bias"
    of_a_site = [
        await run.send_update("food", 2, zero),
        await run.send_update("food", 1, {**zero, "backdoor": zero[bias]}),
        await run.send_update("food", 1, {**zero, bias: np.zeros(7, np.float32)}),
        await run.send_update("food", 1, {**zero, bias: np.full_like(zero[bias], np.nan)}),
        await run.send_update("food", 1, {**zero, bias: np.full_like(zero[bias], np.inf)}),
        await run.send_update("food", 1, fill(1e6)),
        await run.send_update("food", 1, zero, samples=61),
        await run.post("food", "/v1/join", b"no message"),
        await run.post("food", "/v1/join", bytes(MAX_MESSAGE_BYTES + 1)),
    ]
    for response in of_a_site:
        answered["food", response.status_code, response.text] += 1
    strangers = [
        request(b"", token="wrong"),
        request(b"", path="/v2/join"),
        request(b"", **{"Content-Length": "many"}),
        b"\x16\x03\x01\r\n\r\n",
    ]
    for content in strangers:
        status, text = await ask_plainly(run, content)
        answered["", status, text.decode()] += 1
    status, text = await ask_plainly(
        run, request(b"too slow", token=TOKENS["food"], **{"Content-Length": "9"})
    )
    answered["food", status, text.decode()] += 1
    return answered


@pytest.mark.anyio
async def test_whatever_is_refused_the_diary_has_it_with_the_reason_and_the_run_goes_on_to_its_end(
    ground: RunGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.5)
    async with lead_run(ground, rounds=1) as run:
        zero = (await run.join_all()).flat_gradient()
        answered = await offend(run, zero)
        kinds = Counter((site, status) for site, status, _ in answered)
        assert kinds == {
            **dict.fromkeys((("", status) for status in (400, 401, 404, 411)), 1),
            **dict.fromkeys((("food", status) for status in (408, 409, 413)), 1),
            ("food", 422): 6,  # what is infinite or no number is refused in the same words
        }
        assert (await run.answer_all(1, zero)).header["done"]
        await run.leading
        assert run.status().phase == "done"
        told = {(one.site, one.status, one.reason): one.count for one in run.status().refusals}
        assert told == answered
        for one in run.status().refusals:
            assert (one.address, one.round) == ("" if one.site else "127.0.0.1", 1)
            assert abs(time.time() - one.at) < 60
        assert set(run.status().rounds[0].sites) == set(TOKENS)
    written = run.progress.read_text(encoding="utf-8")
    assert not any(token in written for token in (*TOKENS.values(), "wrong\n", "Bearer"))


@pytest.mark.anyio
async def test_a_late_update_is_told_that_it_was_not_counted_and_one_sent_again_is_not(
    ground: RunGround, caplog: pytest.LogCaptureFixture
) -> None:
    async with lead_run(ground, rounds=100, round_deadline_seconds=1.0) as run:
        zero = (await run.join_all()).flat_gradient()
        await asyncio.gather(*(run.answer(site, 1, zero) for site in ("food", "books")))
        await run.answer("food", 1, zero)  # again, as after a broken connection
        assert run.status().refusals == ()
        with contextlib.closing(AggregatorClient(str(run.http.base_url), TOKENS["travel"])) as travel:
            batch = {"samples": 4, "loss_sum": 1.0, "correct": 4}
            header, _ = await asyncio.to_thread(travel.exchange, 1, {"batch": batch}, zero)
        assert header["round"] == 2
        (late,) = run.status().refusals
        assert (late.site, late.status, late.round) == ("travel", 200, 2)
        assert late.reason == "round 1 was closed already: the update came too late and was not counted"
        assert late.reason in caplog.text


@pytest.mark.anyio
async def test_a_site_that_is_left_out_for_good_is_in_the_diary(ground: RunGround) -> None:
    async with lead_run(ground, rounds=100) as run:
        await run.join_all()
        run.aggregator._absences["travel"] = 3
        response = await run.post("travel", "/v1/join", encode_message({"token_counts": WORDS}, {}))
        (told,) = find(run, 403, "travel")
        assert (response.status_code, told.reason) == (403, response.text)


@pytest.mark.anyio
@pytest.mark.parametrize("shape", [[7], [3, 3], [10**9]], ids=str)
async def test_the_sites_log_and_the_diary_give_the_same_reason(ground: RunGround, shape: list[int]) -> None:
    """The trainer's own client, refused for a tensor of a name that goes on and on."""
    name = "回声<b>" * 300
    async with lead_run(ground, rounds=100) as run:
        await run.join_all()
        tensors = {name: np.zeros([min(size, 9) for size in shape], np.float32)}
        with (
            contextlib.closing(AggregatorClient(str(run.http.base_url), TOKENS["books"])) as books,
            pytest.raises(AggregatorError) as failure,
        ):
            batch = {"samples": 4, "loss_sum": 1.0, "correct": 4}
            await asyncio.to_thread(books.exchange, 1, {"batch": batch}, tensors)
        (told,) = find(run, 422, "books")
        assert len(told.reason) == REASON_MAX_CHARS
        assert str(failure.value) == f"/v1/rounds/1/update answered 422: {told.reason}"


@pytest.mark.anyio
async def test_ten_thousand_wrong_tokens_add_a_handful_of_lines_and_hold_up_no_round(
    ground: RunGround, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    knock = b"GET /v1/settings HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n\r\n"

    def hammer(address: tuple[str, int], source: str, times: int) -> int:
        answered = 0
        with socket.create_connection(address, timeout=30, source_address=(source, 0)) as connection:
            reader = connection.makefile("rb")
            for _ in range(times // 50):
                connection.sendall(knock * 50)
                for _ in range(50):
                    answered += reader.readline().startswith(b"HTTP/1.1 401")
                    while reader.readline() != b"\r\n":
                        pass
                    reader.read(len(b"no site has this token"))
            reader.close()
        return answered

    async with lead_run(ground, rounds=3) as run:
        zero = (await run.join_all()).flat_gradient()
        sources = [f"127.0.0.{number}" for number in range(2, 6)]
        hammering = [asyncio.to_thread(hammer, address_of(run), source, 2500) for source in sources]
        told = asyncio.gather(*hammering)
        for number in (1, 2):
            await run.answer_all(number, zero)
        assert await told == [2500] * 4
        await run.answer_all(3, zero)
        await run.leading
        status = run.status()
    assert status.phase == "done"
    counts = {one.address: one.count for one in status.refusals}
    assert counts == dict.fromkeys(sources, 2500), "the last count is exact"
    refused = [entry for entry in diary_lines(run.progress) if entry["kind"] == "refused"]
    assert len(refused) <= 4 * 13
    assert caplog.text.count("no site has this token") <= 4 * 13
    assert run.progress.stat().st_size < 20_000
    assert all(record.seconds < 20 for record in status.rounds)
