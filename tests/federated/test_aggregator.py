"""The aggregator over real HTTP, in threads of its own; the test speaks for the sites."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import save

from federated.aggregator import Aggregator, RunFailed, Stopped, lead_and_serve
from federated.averaging import GradientSum
from federated.journal import Journal
from federated.protocol import (
    EXIT_MOVED,
    ProgressLog,
    RunStatus,
    Tensors,
    Update,
    decode_message,
    encode_message,
    mend_last_line,
    read_progress,
)
from federated.rows import apply_changes, pack_tensors
from federated.server import MAX_MESSAGE_BYTES, AggregatorServer
from ml.data import Dataset, Example, collate, encode_dataset, pool_datasets
from ml.model import ROW_PARAMETERS, ModelConfig, build_model
from ml.optimizer import ServerOptimizer
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.train import BatchGradient, batch_gradient
from ml.vocabulary import Vocabulary, count_tokens
from tests.federated.conftest import SITES, TRAIN_SAMPLES, RunGround, write_reviews

pytestmark = pytest.mark.anyio

TOKENS = {site: f"token-of-{site}" for site in SITES}
WORDS = {"好吃": 3, "难吃": 2}


@dataclass(frozen=True)
class Answer:
    """What a site got back: its orders and the parameters to take the next gradient at."""

    header: dict[str, Any]
    parameters: Tensors

    def flat_gradient(self) -> Tensors:
        """A gradient that fits and asks for no change."""
        return {name: np.zeros_like(value) for name, value in self.parameters.items()}


@dataclass(frozen=True)
class LedRun:
    """A run under way, and a line to its aggregator."""

    aggregator: Aggregator
    leading: asyncio.Task[None]
    http: httpx.AsyncClient
    progress: Path
    held: dict[str, Tensors]  # what each site holds: it is sent all once, and then what has changed

    def status(self) -> RunStatus:
        return read_progress(self.progress)

    async def post(self, site: str, path: str, content: bytes) -> httpx.Response:
        return await self.http.post(
            path, content=content, headers={"Authorization": f"Bearer {TOKENS[site]}"}
        )

    async def join(self, site: str, counts: dict[str, int] | None = None) -> Answer:
        body = encode_message({"token_counts": WORDS if counts is None else counts}, {})
        return self.read_answer(site, await self.post(site, "/v1/join", body))

    async def join_all(self) -> Answer:
        """All sites join; returns what the first of them got."""
        return (await asyncio.gather(*(self.join(site) for site in SITES)))[0]

    async def send_update(
        self, site: str, number: int, gradients: Tensors, /, *, samples: int = 4, **header: Any
    ) -> httpx.Response:
        batch = {"samples": samples, "loss_sum": 1.0 * samples, "correct": samples}
        body = encode_message({"site": site, "batch": batch, **header}, gradients)
        return await self.post(site, f"/v1/rounds/{number}/update", body)

    async def answer(self, site: str, number: int, gradients: Tensors, /, **changes: Any) -> Answer:
        return self.read_answer(site, await self.send_update(site, number, gradients, **changes))

    def read_answer(self, site: str, response: httpx.Response) -> Answer:
        assert response.status_code == 200, response.text
        header, sent = decode_message(bytearray(response.content))
        if site in self.held and "vocabulary" not in header:
            held = {name: torch.from_numpy(value.copy()) for name, value in self.held[site].items()}
            apply_changes(held, sent)
            sent = {name: value.numpy() for name, value in held.items()}
        self.held[site] = sent
        return Answer(header, sent)

    async def answer_all(self, number: int, gradients: Tensors) -> Answer:
        return (await asyncio.gather(*(self.answer(site, number, gradients) for site in SITES)))[0]


@contextlib.asynccontextmanager
async def lead_run(ground: RunGround, **changes: Any) -> AsyncIterator[LedRun]:
    progress = ground.root / "progress.jsonl"
    aggregator = Aggregator(ground.spec(**changes), ground.store, ProgressLog(progress), Journal(ground.root))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with AggregatorServer(listener, aggregator, TOKENS).serving():
        leading = asyncio.create_task(asyncio.to_thread(aggregator.lead))
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
                yield LedRun(aggregator, leading, http, progress, {})
        finally:
            aggregator.fail("the test is over")
            await asyncio.gather(leading, return_exceptions=True)


Lead = Callable[..., AbstractAsyncContextManager[LedRun]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def lead(ground: RunGround) -> Lead:
    """Lead a run with three sites; keyword arguments change its specification."""

    def start(**changes: Any) -> AbstractAsyncContextManager[LedRun]:
        return lead_run(ground, **{"rounds": 100, **changes})

    return start


# -- Who may speak -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/settings"), ("POST", "/v1/join"), ("POST", "/v1/rounds/1/update")]
)
async def test_without_a_sites_token_nothing_is_answered(lead: Lead, method: str, path: str) -> None:
    wrong = (None, "", "Bearer", "Bearer wrong", "Bearer token-of-foo", "Basic token-of-food", "Bearer 令牌")
    async with lead() as run:
        for authorization in wrong:
            headers = {} if authorization is None else {"Authorization": authorization.encode()}
            response = await run.http.request(method, path, content=b"", headers=headers)
            assert response.status_code == 401, authorization
            assert "no site has this token" in response.text
            assert all(token not in response.text for token in TOKENS.values())


async def test_anyone_may_ask_whether_the_aggregator_lives(lead: Lead) -> None:
    async with lead() as run:
        assert (await run.http.get("/livez")).json() == {"run": "run-1"}


async def test_settings_tell_a_site_its_name_and_the_tokenizer(lead: Lead) -> None:
    async with lead() as run:
        answer = await run.http.get("/v1/settings", headers={"Authorization": "Bearer token-of-books"})
        assert answer.json() == {
            "run": "run-1",
            "site": "books",
            "tokenizer": TokenizerSettings().to_json(),
            # its part of the round's batch is its part of all samples
            "batch_size": round(256 * TRAIN_SAMPLES["books"] / sum(TRAIN_SAMPLES.values())),
        }


async def test_a_site_cannot_speak_for_another(lead: Lead) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        await asyncio.gather(
            run.answer("food", 1, zero, samples=1, site="books"),  # claims to be books
            run.answer("books", 1, zero, samples=2),
            run.answer("travel", 1, zero, samples=3),
        )
        counted = {site: values["samples"] for site, values in run.status().rounds[0].sites.items()}
        assert counted == {"food": 1, "books": 2, "travel": 3}


async def test_what_is_still_being_sent_does_not_change_in_the_next_round(lead: Lead) -> None:
    async with lead(network={"hidden_dim": 96}) as run:  # whose tensors are sent as they lie
        joined = await run.join_all()
        gradient = {name: np.ones_like(value) for name, value in joined.parameters.items()}
        welcome = run.aggregator.wait_for_training()
        sent_to_new = b"".join(welcome)
        await run.answer_all(1, gradient)
        changes = run.aggregator.wait_for_round(1)
        sent_to_all = b"".join(changes)
        await run.answer_all(2, gradient)
        assert b"".join(run.aggregator.wait_for_round(2)) != sent_to_all
        assert (b"".join(welcome), b"".join(changes)) == (sent_to_new, sent_to_all)


# -- Joining -----------------------------------------------------------------------------------------------------


async def test_training_begins_when_all_sites_have_joined(lead: Lead) -> None:
    async with lead() as run:
        early = [asyncio.create_task(run.join(site)) for site in ("food", "books")]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in early)
        assert run.status().phase == "starting"
        last = await run.join("travel")
        first, second = await asyncio.gather(*early)
        assert run.status().phase == "training"
        assert first.header["round"] == second.header["round"] == last.header["round"] == 1


async def test_the_vocabulary_joins_what_all_sites_counted(lead: Lead) -> None:
    async with lead() as run:
        counts = {"food": {"好吃": 1, "面条": 5}, "books": {"好吃": 1, "孤本": 1}, "travel": {"海边": 2}}
        answers = await asyncio.gather(*(run.join(site, counts[site]) for site in SITES))
        # One use is not enough, one at each of two sites is.
        assert answers[0].header["vocabulary"] == ["<pad>", "<unk>", "面条", "好吃", "海边"]
        assert len({json.dumps(answer.header["vocabulary"]) for answer in answers}) == 1


async def test_training_begins_without_a_site_that_does_not_join_and_takes_it_in_later(lead: Lead) -> None:
    async with lead(join_deadline_seconds=0.3) as run:
        answers = await asyncio.gather(run.join("food"), run.join("books"))
        assert run.status().missing_sites == ("travel",)
        zero = answers[0].flat_gradient()
        await asyncio.gather(*(run.answer(site, 1, zero) for site in ("food", "books")))
        late = await run.join("travel")
        assert late.header["round"] == 2
        assert run.status().missing_sites == ()
        await run.answer_all(2, zero)
        assert [set(record.sites) for record in run.status().rounds] == [{"food", "books"}, set(SITES)]


async def test_too_few_sites_fail_the_run_and_the_waiting_one_is_told_why(lead: Lead) -> None:
    async with lead(join_deadline_seconds=0.3) as run:
        waiting = asyncio.create_task(
            run.post("food", "/v1/join", encode_message({"token_counts": WORDS}, {}))
        )
        with pytest.raises(RunFailed, match=r"1 of 3 sites joined .* 2 are needed; missing: books, travel"):
            await run.leading
        run.aggregator.fail("not enough sites")
        response = await waiting
        assert (response.status_code, "not enough sites" in response.text) == (410, True)
        late = await run.post("books", "/v1/rounds/1/update", encode_message({}, {}))
        assert late.status_code in (410, 422)


async def test_a_run_beyond_its_deadline_fails_with_the_round_it_was_in(lead: Lead) -> None:
    async with lead(deadline_seconds=0.6) as run:
        zero = (await run.join_all()).flat_gradient()
        await run.answer_all(1, zero)
        with pytest.raises(RunFailed, match=r"not done within 1 s \(round 2\)"):
            await run.leading


@pytest.mark.parametrize(
    "counts", [None, [], "好吃", {"好吃": 0}, {"好吃": -1}, {"好吃": "3"}, {"好吃": 1.5}, {"\ud800": 2}]
)
async def test_counts_that_are_none_are_refused_and_the_site_may_join_again(
    lead: Lead, counts: object
) -> None:
    async with lead() as run:
        header = json.dumps({"token_counts": counts})  # as another program might write it
        response = await run.post("food", "/v1/join", save({}, metadata={"header": header}))
        assert response.status_code == 422
        assert "token_counts" in response.text
        assert (await run.join_all()).header["round"] == 1


# -- Rounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 5, 101, 10**9])
async def test_a_round_that_has_not_begun_is_refused_with_the_present_one(lead: Lead, number: int) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        response = await run.send_update("food", number, zero)
        assert response.status_code == 409
        assert f"round {number} of 100" in response.text
        assert "present one is 1" in response.text
        await run.answer_all(1, zero)  # and the run goes on


async def test_an_update_before_training_has_begun_is_refused(lead: Lead) -> None:
    async with lead() as run:
        response = await run.send_update("food", 1, {"output.bias": np.zeros(3, np.float32)})
        assert response.status_code == 409


async def test_a_repeated_update_counts_once(lead: Lead) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        steep = {name: np.ones_like(value) for name, value in zero.items()}
        first = asyncio.create_task(run.answer("food", 1, zero, samples=5))
        await asyncio.sleep(0.1)
        again = asyncio.create_task(run.answer("food", 1, steep, samples=50))
        await asyncio.sleep(0.1)
        await asyncio.gather(run.answer("books", 1, zero), run.answer("travel", 1, zero))
        assert (await first).header["round"] == (await again).header["round"] == 2
        record = run.status().rounds[0]
        assert record.sites["food"]["samples"] == 5
        # Nobody asked for a change of the biases, which do not decay.
        assert not (await first).parameters["output.bias"].any()


async def test_a_round_waits_for_what_is_being_added_and_what_is_sent_again_meanwhile_counts_once(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    add = GradientSum.add

    def add_slowly(total: GradientSum, update: Update) -> None:
        if update.site == "travel":
            begun.set()
            assert may_go_on.wait(30)
        add(total, update)

    monkeypatch.setattr(GradientSum, "add", add_slowly)
    async with lead(round_deadline_seconds=1.0) as run:
        gradients = (await run.join_all()).flat_gradient()
        slow = [asyncio.create_task(run.send_update("travel", 1, gradients)) for _ in range(2)]
        await asyncio.to_thread(begun.wait, 30)
        others = [
            asyncio.create_task(run.send_update(site, 1, gradients)) for site in SITES if site != "travel"
        ]
        finished, _ = await asyncio.wait([*slow, *others], timeout=2.5)  # the round's deadline has passed
        assert not finished
        may_go_on.set()
        responses = await asyncio.gather(*slow, *others)
        assert {response.status_code for response in responses} == {200}
        record = run.status().rounds[0]
        assert sorted(record.sites) == sorted(SITES)
        assert record.accuracy == 1.0
        assert run.status().missing_sites == ()


async def test_a_late_update_is_not_counted_and_brings_its_site_up_to_date(lead: Lead) -> None:
    async with lead(round_deadline_seconds=0.5) as run:
        joined = await run.join_all()
        up = {name: np.ones_like(value) for name, value in joined.parameters.items()}
        in_time = await asyncio.gather(*(run.answer(site, 1, up) for site in ("food", "books")))
        assert run.status().missing_sites == ("travel",)

        late = await run.answer("travel", 1, {name: -1000 * value for name, value in up.items()})
        assert late.header["round"] == 2
        for name, value in in_time[0].parameters.items():
            assert np.array_equal(late.parameters[name], value)
            assert not np.array_equal(value, joined.parameters[name])
        assert run.status().missing_sites == ()

        await run.answer_all(2, up)
        assert [set(record.sites) for record in run.status().rounds] == [{"food", "books"}, set(SITES)]


async def test_a_site_that_keeps_failing_is_left_out_for_good_and_named(lead: Lead) -> None:
    async with lead(round_deadline_seconds=1.0) as run:
        zero = (await run.join_all()).flat_gradient()
        for number in (1, 2, 3):
            await asyncio.gather(*(run.answer(site, number, zero) for site in ("food", "books")))
            if number < 3:
                assert (await run.join("travel")).header["round"] == number + 1  # back, and silent again
        for refused in (
            await run.post("travel", "/v1/join", encode_message({"token_counts": WORDS}, {})),
            await run.send_update("travel", 4, zero),
        ):
            assert (refused.status_code, "travel has been waited for in vain 3 times" in refused.text) == (
                403,
                True,
            )
        await asyncio.gather(*(run.answer(site, 4, zero) for site in ("food", "books")))
        assert run.status().rounds[3].seconds < 1.0  # nobody waits for it any more
        assert run.status().missing_sites == ("travel",)


async def test_without_a_quorum_the_run_pauses_and_goes_on_when_there_is_one(lead: Lead) -> None:
    async with lead(round_deadline_seconds=1.0) as run:
        zero = (await run.join_all()).flat_gradient()
        alone = asyncio.create_task(run.answer("food", 1, zero))
        await until(lambda: run.status().phase == "paused")
        assert "round 1: 1 of 3 sites answered" in run.status().reason
        assert run.status().reason.endswith("2 are needed; missing: books, travel")
        assert (await run.answer("books", 1, zero)).header["round"] == 2
        assert (await alone).header["round"] == 2
        assert (run.status().phase, run.status().reason) == ("training", "")


async def test_a_pause_ends_with_the_runs_deadline_and_the_reason(lead: Lead) -> None:
    async with lead(round_deadline_seconds=0.8, deadline_seconds=3) as run:
        zero = (await run.join_all()).flat_gradient()
        alone = asyncio.create_task(run.send_update("food", 1, zero))
        with pytest.raises(
            RunFailed, match=r"not done within 3 s \(round 1\); round 1: 1 of 3 .*missing: books"
        ):
            await run.leading
        run.aggregator.fail("no quorum")
        assert (await alone).status_code == 410


async def test_an_aggregator_that_died_goes_on_where_it_was(lead: Lead, ground: RunGround) -> None:
    async with lead() as run:
        joined = await run.join_all()
        up = {name: np.ones_like(value) for name, value in joined.parameters.items()}
        answers = await run.answer_all(1, up)
        answers = await run.answer_all(2, up)
    assert run.status().phase != "done"
    with (ground.root / "progress.jsonl").open("a") as diary:
        diary.write('{"kind": "rou')  # as a death amid a line leaves it
    mend_last_line(ground.root / "progress.jsonl")

    async with lead() as again:
        again.held.update(run.held)
        late = await again.answer("food", 2, up)  # whose answer was lost
        assert late.header["round"] == 3
        for name, value in answers.parameters.items():
            assert np.array_equal(late.parameters[name], value)
        assert [record.number for record in again.status().rounds] == [1, 2]
        rejoined = await again.join("travel")
        assert rejoined.header["vocabulary"] == joined.header["vocabulary"]
        assert (await again.answer_all(3, up)).header["round"] == 4


async def test_matrices_of_which_all_rows_moved_come_down_whole(lead: Lead) -> None:
    async with lead() as run:
        joined = await run.join_all()
        up = {name: np.ones_like(value) for name, value in joined.parameters.items()}
        answer, *_ = await asyncio.gather(*(run.send_update(site, 1, up) for site in SITES))
        _header, changes = decode_message(answer.content)
        assert changes.keys() == joined.parameters.keys()
        for name, value in joined.parameters.items():
            assert np.abs(changes[name] - value).min() > 0, name


async def test_rows_that_were_touched_are_all_that_goes_up_and_comes_down(lead: Lead) -> None:
    async with lead() as run:
        joined = await run.join_all()
        gradient = joined.flat_gradient()
        gradient["embedding.weight"][2] = 1.0
        rows = {name: value for name, value in gradient.items() if name != "embedding.weight"}
        rows["embedding.weight#rows"] = np.array([2], np.int32)
        rows["embedding.weight#values"] = gradient["embedding.weight"][[2]]
        sending = [run.send_update(site, 1, rows) for site in ("books", "travel")]
        whole, *others = await asyncio.gather(run.send_update("food", 1, gradient), *sending)
        assert {answer.content for answer in others} == {whole.content}
        header, changes = decode_message(whole.content)
        assert header["round"] == 2
        assert changes["embedding.weight#rows"].tolist() == [2]
        moved = changes["embedding.weight#values"][0] - joined.parameters["embedding.weight"][2]
        assert np.abs(moved).min() > 0
        wrong = {**rows, "embedding.weight#rows": np.array([-1], np.int32)}
        refused = await run.send_update("food", 2, wrong)
        assert (refused.status_code, "places must ascend" in refused.text) == (422, True)


async def test_a_site_that_fell_behind_is_sent_all_parameters(lead: Lead) -> None:
    async with lead(round_deadline_seconds=1.0) as run:
        joined = await run.join_all()
        gradient = joined.flat_gradient()
        for number in (1, 2):
            gradient["embedding.weight"][number + 1] = 1.0
            answers = await asyncio.gather(
                *(run.answer(site, number, gradient) for site in ("books", "travel"))
            )
        late = await run.send_update("food", 1, gradient)
        header, sent = decode_message(late.content)
        assert header["round"] == 3
        assert np.array_equal(sent["embedding.weight"], answers[0].parameters["embedding.weight"])


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_after_the_last_round_sites_are_sent_home_and_the_model_is_kept(
    lead: Lead, ground: RunGround
) -> None:
    async with lead(rounds=1) as run:
        zero = (await run.join_all()).flat_gradient()
        assert (await run.answer_all(1, zero)).header["done"]
        assert (await run.answer("travel", 1, zero)).header["done"]  # late, and told the same
        assert (await run.join("travel")).header["done"]
        beyond = await run.send_update("food", 2, zero)
        assert beyond.status_code == 409
        await run.leading
        status = run.status()
        assert status.phase == "done"
        assert status.result is not None
        assert ground.store.artifact(status.result["artifact"]).is_dir()


async def test_rounds_over_the_wire_arrive_where_central_training_does(lead: Lead) -> None:
    tokenizer = make_tokenizer(TokenizerSettings())
    examples = {
        site: [Example(row["text"], row["label"]) for row in write_reviews(site, "", TRAIN_SAMPLES[site])]
        for site in SITES
    }
    async with lead() as run:
        counts = [count_tokens((example.text for example in examples[site]), tokenizer) for site in SITES]
        joined = await asyncio.gather(*map(run.join, SITES, counts))
        plan = joined[0].header
        vocabulary, config = Vocabulary(plan["vocabulary"]), ModelConfig.from_json(plan["model"])
        shards = [encode_dataset(examples[site], tokenizer, vocabulary, plan["max_length"]) for site in SITES]

        def take_gradient(parameters: dict[str, torch.Tensor], shard: Dataset) -> BatchGradient:
            model = build_model(
                config, parameters, words=vocabulary.tokens
            ).eval()  # nothing is dropped, since dropping is random
            return batch_gradient(model, collate(shard, range(len(shard))), plan["label_smoothing"])

        start = {name: torch.from_numpy(value.copy()) for name, value in joined[0].parameters.items()}
        central = ServerOptimizer(start, run.aggregator.config, ROW_PARAMETERS)
        federated = joined[0]
        for number in range(1, 9):
            pooled = take_gradient(central.parameters, pool_datasets(shards))
            central.step({name: total / pooled.samples for name, total in pooled.sums.items()})
            parameters = {
                name: torch.from_numpy(value.copy()) for name, value in federated.parameters.items()
            }
            gradients = [take_gradient(parameters, shard) for shard in shards]
            answers = await asyncio.gather(
                *(
                    run.answer(site, number, pack_tensors(mine.sums), samples=mine.samples)
                    for site, mine in zip(SITES, gradients, strict=True)
                )
            )
            federated = answers[0]
        for name, value in central.parameters.items():
            np.testing.assert_allclose(federated.parameters[name], value.numpy(), rtol=1e-5, atol=1e-5)
            assert (value - start[name]).abs().max() > 1e-3, f"{name} has not moved, so this shows nothing"


# -- What is refused ---------------------------------------------------------------------------------------------


async def test_a_message_that_is_too_large_is_refused(lead: Lead) -> None:
    async with lead() as run:
        response = await run.post("food", "/v1/join", bytes(MAX_MESSAGE_BYTES + 1))
        assert response.status_code == 413
        assert str(MAX_MESSAGE_BYTES) in response.text
        assert (await run.join_all()).header["round"] == 1


@pytest.mark.parametrize("content", [b"", b"not a message", save({}), save({}, metadata={"header": "[]"})])
async def test_what_is_no_message_is_refused(lead: Lead, content: bytes) -> None:
    async with lead() as run:
        joined = asyncio.create_task(run.join_all())
        for path in ("/v1/join", "/v1/rounds/1/update"):
            response = await run.post("food", path, content)
            assert response.status_code == 422
            assert "header" in response.text
        zero = (await joined).flat_gradient()
        assert (await run.answer_all(1, zero)).header["round"] == 2


async def test_not_a_number_is_refused_and_the_run_goes_on_without_that_site(lead: Lead) -> None:
    async with lead(round_deadline_seconds=0.5) as run:
        zero = (await run.join_all()).flat_gradient()
        poisoned = {**zero, "output.bias": np.full_like(zero["output.bias"], np.nan)}
        response = await run.send_update("travel", 1, poisoned)
        assert response.status_code == 422
        assert "travel" in response.text
        assert "output.bias" in response.text
        answers = await asyncio.gather(*(run.answer(site, 1, zero) for site in ("food", "books")))
        assert all(np.isfinite(value).all() for value in answers[0].parameters.values())
        assert run.status().missing_sites == ("travel",)

        # Having been left out, it does not hold up the next round by sending nonsense again.
        assert (await run.send_update("travel", 2, poisoned)).status_code == 422
        assert run.status().missing_sites == ("travel",)
        await asyncio.gather(*(run.answer(site, 2, zero) for site in ("food", "books")))
        assert [set(record.sites) for record in run.status().rounds] == [{"food", "books"}] * 2
        assert run.status().rounds[1].seconds < 0.5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda zero: {"output.bias": np.zeros(7, np.float32)}, "output.bias"),
        (lambda zero: {"output.bias": zero["output.bias"].astype(np.float64)}, "float64"),
        (lambda zero: {"backdoor": np.zeros(3, np.float32)}, "backdoor"),
    ],
    ids=["shape", "dtype", "name"],
)
async def test_a_gradient_that_does_not_fit_is_refused_by_name(
    lead: Lead, change: Callable[[Tensors], Tensors], named: str
) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        response = await run.send_update("books", 1, {**zero, **change(zero)})
        assert response.status_code == 422
        assert "site books" in response.text
        assert named in response.text
        assert (await run.answer_all(1, zero)).header["round"] == 2


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        (None, "metrics"),
        ({"samples": 4, "loss_sum": 1.0}, "correct"),
        ({"samples": 4, "loss_sum": 1.0, "correct": 5}, "impossible"),
        ({"samples": -4, "loss_sum": 1.0, "correct": 0}, "impossible"),
        ({"samples": 4, "loss_sum": float("nan"), "correct": 1}, "impossible"),
        ({"samples": float("inf"), "loss_sum": 1.0, "correct": 1}, "metrics"),
        ({"samples": 0, "loss_sum": 0.0, "correct": 0}, "at least one sample"),
        ({"samples": 10**9, "loss_sum": 1.0, "correct": 1}, "its shards hold 60 and 12"),
    ],
)
async def test_impossible_metrics_are_refused_and_the_run_goes_on(
    lead: Lead, batch: dict[str, float] | None, why: str
) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        response = await run.send_update("food", 1, zero, batch=batch)
        assert response.status_code == 422
        assert why in response.text
        assert (await run.answer_all(1, zero)).header["round"] == 2
        assert run.status().rounds[0].sites["food"]["samples"] == 4


async def test_more_validation_samples_than_the_site_has_are_refused(lead: Lead) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        claimed = {"samples": 13, "loss_sum": 1.0, "correct": 13}
        response = await run.send_update("food", 1, zero, validation=claimed)
        assert response.status_code == 422
        assert "13 for validation" in response.text


async def test_a_rounds_record_adds_up_what_the_sites_saw(lead: Lead) -> None:
    async with lead() as run:
        zero = (await run.join_all()).flat_gradient()
        seen = {"food": (10, 5.0, 9), "books": (30, 3.0, 15), "travel": (10, 2.0, 6)}
        await asyncio.gather(
            *(
                run.answer(
                    site,
                    1,
                    zero,
                    batch={"samples": samples, "loss_sum": loss, "correct": correct},
                    validation={"samples": 12, "loss_sum": 1.0, "correct": correct // 3},
                )
                for site, (samples, loss, correct) in seen.items()
            )
        )
        record = run.status().rounds[0]
        assert (record.loss, record.accuracy) == (pytest.approx(10 / 50), pytest.approx(30 / 50))
        assert record.validation_accuracy == pytest.approx((3 + 5 + 2) / 36)
        assert record.sites["food"] == {
            "samples": 10,
            "loss": 0.5,
            "accuracy": 0.9,
            "validation_accuracy": 0.25,
        }
        assert record.bytes_up > 3 * sum(value.nbytes for value in zero.values())


async def test_a_signal_between_giving_the_lock_up_and_waiting_moves_a_run_like_any_other(
    ground: RunGround,
) -> None:
    aggregator = Aggregator(
        ground.spec(), ground.store, ProgressLog(ground.root / "progress.jsonl"), Journal(ground.root)
    )
    give_up = aggregator._changed._release_save

    def give_up_and_stop() -> None:
        give_up()
        raise Stopped

    aggregator._changed._release_save = give_up_and_stop
    listener = socket.create_server(("127.0.0.1", 0))
    server = AggregatorServer(listener, aggregator, TOKENS)
    assert await asyncio.to_thread(lead_and_serve, aggregator, server, resumable=True) == EXIT_MOVED
