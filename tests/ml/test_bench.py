"""The benchmark of the inference service: its clients, its checks, and the whole of it over a small model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ml.artifact import load_artifact
from ml.bench.__main__ import is_client_bound, main
from ml.bench.answers import is_right
from ml.bench.computing import InProcess, compute_probabilities, make_torch_answer
from ml.bench.measurements import (
    Overload,
    Plan,
    Round,
    choose_quiet,
    name_statuses,
    noticing_others,
    summarize_overloads,
    summarize_rounds,
)
from ml.bench.models import Recipe, copy_to_store, keep_models, models_of_store
from ml.bench.processes import BenchError, choose_cores, measure_start, run_on_core, serving
from ml.bench.reviews import choose_reviews, make_batches, take_short, write_request
from ml.bench.swaps import choose_telling, point_at, swap_under_load
from ml.bench.traffic import LOST, UNSENT, Answer, Traffic, ask_in_turns, measure_rate, measure_turns
from ml.model_config import ModelConfig
from ml.predict import Predictor
from ml.training_config import FIRST_TRAINING
from tests.ml.conftest import ROOT, ServeStore, Store, TinyModel
from tests.servers import wait_until

REQUEST = write_request(["好"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="client and server need a core each"
)

Speak = Callable[[socket.socket], None]


@contextmanager
def listening(speak: Speak) -> Iterator[int]:
    """Serve each connection by `speak`, in a thread of its own."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            speak(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def answering(*parts: bytes, delay_seconds: float = 0.0) -> Speak:
    """Answer every request with these parts, a moment between them."""

    def speak(connection: socket.socket) -> None:
        while connection.recv(65536):
            for index, part in enumerate(parts):
                time.sleep(0.002 if index else delay_seconds)
                connection.sendall(part)

    return speak


# -- Clients -----------------------------------------------------------------------------------------------------


def test_clients_in_turns_count_what_they_were_answered_and_how_long_it_took() -> None:
    with listening(answering(OK, delay_seconds=0.02)) as port:
        traffic = measure_turns(port, [REQUEST], clients=4, seconds=0.5, warm_up_seconds=0.1)
    assert traffic.failed == 0
    assert traffic.answered == len(traffic.latencies_ms)
    assert 60 < traffic.answered <= 104
    assert 20 <= traffic.percentile_ms(50) < 60
    assert traffic.rate == pytest.approx(traffic.answered / 0.5)
    assert 0 < traffic.client_cpu_share < 0.9


def test_an_answer_that_comes_in_pieces_is_one_answer() -> None:
    head, body = OK[:-2], OK[-2:]
    with listening(answering(head[:20], head[20:], body[:1], body[1:])) as port:
        answers = ask_in_turns(port, [REQUEST], clients=1)
        assert [(next(answers).status, next(answers).body) for _ in range(3)] == [(200, b"{}")] * 3
        answers.close()


def test_every_request_is_asked_in_order_and_its_answer_names_it() -> None:
    requests = [write_request([text]) for text in "一二三"]

    def echo(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            body = request.split(b"\r\n\r\n", 1)[1]
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    with listening(echo) as port:
        answers = ask_in_turns(port, requests, clients=2)
        found = [next(answers) for _ in range(9)]
        answers.close()
    assert {answer.number for answer in found} == {0, 1, 2}
    assert all(requests[answer.number].endswith(answer.body) for answer in found)


def test_refusals_and_lost_connections_are_counted_and_are_no_latencies() -> None:
    replies = iter([OK, BUSY, b"", OK, BUSY, b""] * 1000)
    turn = threading.Lock()

    def fickle(connection: socket.socket) -> None:
        while connection.recv(65536):
            with turn:
                reply = next(replies)
            time.sleep(0.005)
            if not reply:
                return
            connection.sendall(reply)

    with listening(fickle) as port:
        traffic = measure_turns(port, [REQUEST], clients=1, seconds=0.4, warm_up_seconds=0.0)
    assert set(traffic.statuses) == {200, 429, LOST}
    assert traffic.failed == traffic.statuses[429] + traffic.statuses[LOST]
    assert len(traffic.latencies_ms) == traffic.statuses[200]
    assert name_statuses({200: 5, UNSENT: 1, LOST: 2}) == {"unsent": 1, "lost": 2, "200": 5}


def test_an_answer_without_a_length_is_refused_rather_than_guessed() -> None:
    chunked = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    with listening(chunked) as port, pytest.raises(ValueError, match="without Content-Length"):
        next(ask_in_turns(port, [REQUEST], clients=1))


def test_arrivals_keep_their_rate_when_the_server_does_not() -> None:
    with listening(answering(OK, delay_seconds=0.2)) as port:
        traffic = measure_rate(port, [REQUEST], rate=400, connections=10, seconds=1.0, warm_up_seconds=0.0)
    assert sum(traffic.statuses.values()) == pytest.approx(400, rel=0.05)  # Poisson's spread, seeded
    assert 30 <= traffic.answered <= 60  # ten connections, five turns
    assert traffic.statuses[UNSENT] == sum(traffic.statuses.values()) - traffic.answered


def test_latency_counts_from_when_a_request_should_have_been_sent() -> None:
    """A client that is kept from sending must not hide the wait: here by its own process being stopped."""
    with listening(answering(OK)) as port:
        found: dict[str, Any] = {}
        core = min(os.sched_getaffinity(0))

        def measure() -> None:
            found["traffic"] = run_on_core(
                core, measure_rate, port, [REQUEST], rate=100, connections=64, seconds=2.0
            )

        before = set(psutil.Process().children(recursive=True))
        thread = threading.Thread(target=measure)
        thread.start()
        connected: list[psutil.Process] = []

        def is_connected() -> bool:
            for child in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.Error):
                    if len(child.net_connections()) >= 64:
                        connected.append(child)
            return bool(connected)

        wait_until(is_connected, "the client has its connections")
        time.sleep(1.5)  # past the warm-up
        connected[0].suspend()
        time.sleep(0.5)
        connected[0].resume()
        thread.join()
    assert found["traffic"].failed == 0
    assert 400 < found["traffic"].latencies_ms.max() < 1500


def test_answers_within_a_time_limit_are_the_goodput() -> None:
    with listening(answering(OK, delay_seconds=0.03)) as port:
        traffic = measure_turns(port, [REQUEST], clients=2, seconds=0.5, warm_up_seconds=0.0)
    assert traffic.rate_within(10) == 0
    assert traffic.rate_within(10_000) == traffic.rate


# -- Requests and answers ----------------------------------------------------------------------------------------


def test_reviews_are_the_same_for_everyone_and_short_ones_are_short() -> None:
    reviews = choose_reviews(300)
    assert len(reviews) == len(set(reviews)) == 300
    assert reviews[:100] == choose_reviews(100)
    assert 10 < len(take_short(reviews)) < 300
    assert max(map(len, take_short(reviews))) <= 30
    assert [len(batch) for batch in make_batches(reviews)] == [64] * 4


def answer_of(model: str, header: str, predictions: list[dict[str, Any]], number: int = 0) -> Answer:
    head = b"HTTP/1.1 200 OK\r\nx-model-digest: " + header.encode()
    body = json.dumps({"model": model, "predictions": predictions}).encode()
    return Answer(number, 200, head, body, 0.0, 0.1)


def prediction(label: str, *probabilities: float) -> dict[str, Any]:
    named = dict(zip(("negative", "neutral", "positive"), probabilities, strict=True))
    return {"label": label, "score": max(probabilities), "probabilities": named}


def test_an_answer_must_be_what_the_model_it_names_says() -> None:
    expected = {
        "a" * 64: np.array([[0.9, 0.1, 0.0], [0.2, 0.2, 0.6]], np.float32),
        "b" * 64: np.array([[0.1, 0.1, 0.8], [0.5, 0.4, 0.1]], np.float32),
    }
    a, b = expected
    said_by_a = prediction("negative", 0.9, 0.1, 0.0)
    assert is_right(answer_of(a, a, [said_by_a]), expected)
    assert is_right(answer_of(a, a, [prediction("negative", 0.895, 0.105, 0.0)]), expected)
    assert is_right(answer_of(b, b, [prediction("negative", 0.5, 0.4, 0.1)], number=1), expected)
    assert not is_right(answer_of(b, b, [said_by_a]), expected), "B's name over A's answer"
    assert not is_right(answer_of(a, b, [said_by_a]), expected), "header and body disagree"
    assert not is_right(answer_of(a, a, [prediction("positive", 0.9, 0.1, 0.0)]), expected), "label"
    assert not is_right(answer_of(a, a, []), expected), "no prediction"
    assert not is_right(answer_of("c" * 64, "c" * 64, [said_by_a]), expected), "a model nobody knows"
    assert not is_right(answer_of(a, a, [prediction("negative", float("nan"), 0.1, 0.0)]), expected)


def test_answers_about_several_texts_are_compared_with_those_texts() -> None:
    expected = {"a" * 64: np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)}
    right = [prediction("positive", 0.0, 0.0, 1.0), prediction("negative", 1.0, 0.0, 0.0)]
    assert is_right(answer_of("a" * 64, "a" * 64, right, number=1), expected, texts_a_request=2)
    assert not is_right(answer_of("a" * 64, "a" * 64, right[::-1], number=1), expected, texts_a_request=2)


# -- Models ------------------------------------------------------------------------------------------------------

SMALL = Recipe(
    network=ModelConfig(0, embedding_dim=8, hidden_dim=8, subword_buckets=64, gram_buckets=256),
    training=replace(FIRST_TRAINING.with_rounds(8), max_length=32, global_batch_size=64),
    vocabulary_max_size=400,
    every=40,
)


def test_models_are_made_once_and_made_anew_when_damaged(tmp_path: Path) -> None:
    said: list[str] = []
    made = keep_models(tmp_path, SMALL, said.append)
    assert made.second is not None
    assert made.second != made.first
    assert said
    said.clear()
    assert keep_models(tmp_path, SMALL, said.append) == made
    assert said == []
    (made.folder / made.first / "vocabulary.json").write_bytes(b"{}")
    assert keep_models(tmp_path, SMALL, said.append) == made
    load_artifact(made.folder / made.first, made.first)
    assert [entry.name for entry in tmp_path.iterdir()] == [SMALL.digest()]
    assert replace(SMALL, every=41).digest() != SMALL.digest()


def test_the_network_in_torch_says_what_the_artifact_says(tiny: TinyModel) -> None:
    reviews = choose_reviews(20)
    artifact = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    in_torch = make_torch_answer(artifact)
    expected = Predictor(artifact).probabilities(reviews)
    assert np.concatenate([in_torch([review]) for review in reviews]) == pytest.approx(expected, abs=1e-2)


# -- Processes ---------------------------------------------------------------------------------------------------


def which_cores() -> set[int]:
    return os.sched_getaffinity(0)


def fail() -> None:
    raise ValueError("no such thing")


def die() -> None:
    os._exit(3)


def test_a_function_runs_on_the_core_it_is_given_in_a_process_of_its_own() -> None:
    core = choose_cores().server if len(which_cores()) > 1 else min(which_cores())
    ours = which_cores()
    assert run_on_core(core, which_cores) == {core}
    assert which_cores() == ours
    assert run_on_core(core, os.getpid) != os.getpid()


def test_a_function_that_fails_says_why_and_one_that_dies_with_which_status() -> None:
    core = min(which_cores())
    with pytest.raises(BenchError, match="fail: ValueError: no such thing"):
        run_on_core(core, fail)
    with pytest.raises(BenchError, match="die ended with 3"):
        run_on_core(core, die)


def test_one_core_is_not_enough() -> None:
    with pytest.raises(BenchError, match="client and server need one each"):
        run_on_core(min(which_cores()), choose_cores_here)


def choose_cores_here() -> None:
    try:
        choose_cores()
    except BenchError as error:
        raise ValueError(str(error)) from None


def test_the_constant_server_answers_on_its_core_and_is_gone_afterwards() -> None:
    core = max(which_cores())
    with serving(core, "ml.bench.noop") as server:
        assert server.process.cpu_affinity() == [core]
        assert server.ready_seconds > 0.05
        assert server.rss_mb() > 10
        pid = server.process.pid
        traffic = measure_turns(
            server.port, [REQUEST], clients=4, seconds=0.5, warm_up_seconds=0.1, server_pid=pid
        )
        assert traffic.failed == 0
        assert 1 < traffic.server_cpu_us < 5000
        assert traffic.answered > 10
    assert not psutil.pid_exists(server.process.pid)


def test_a_service_that_does_not_start_is_told_with_what_it_said() -> None:
    with pytest.raises(BenchError, match="--store"), serving(min(which_cores()), "ml.serve", "--no-such"):
        raise AssertionError("it cannot be ready")


def test_starting_is_measured_until_the_service_is_ready(store: Store, tiny: TinyModel) -> None:
    store.point_at(tiny.artifact.digest)
    seconds = measure_start(max(which_cores()), "ml.serve", "--store", store.path.as_uri(), times=1)
    assert 0.1 < seconds < 60


def test_our_own_work_is_not_taken_for_that_of_others() -> None:
    began, clock = os.times(), time.monotonic()
    with noticing_others() as found:
        child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        while time.monotonic() < clock + 1:
            pass
        child.kill()
        child.wait()
    ours = (sum(os.times()[:4]) - sum(began[:4])) / (time.monotonic() - clock)
    assert -0.3 < found[0] < psutil.cpu_count() - ours + 0.3


def test_the_quieter_half_of_the_rounds_counts() -> None:
    traffic = Traffic(1.0, {200: 1}, np.ones(1), 0.1, 10.0, [])
    rounds = [
        Round(others, InProcess(others, others, 1.0, 1.0), *[traffic] * 4, snownlp, 16.0)
        for others, snownlp in ((0.9, 2.0), (0.1, 2.0), (0.5, 4.0), (0.2, None), (0.7, 2.0))
    ]
    figures = summarize_rounds(rounds)
    assert [found.others_cpu_cores for found in choose_quiet(rounds)] == [0.1, 0.2, 0.5]
    assert figures["in_process"]["single_rps"] == 0.2
    assert figures["rounds"]["others_cpu_cores"] == [0.1, 0.2, 0.5]
    assert (figures["torch_eager_texts_per_s"], figures["speedup_vs_torch_eager"]) == (16.0, 4.0)
    assert (figures["snownlp_texts_per_s"], figures["speedup_vs_snownlp"]) == (3.0, 24.0)


def test_a_busy_client_spoils_a_figure_unless_it_only_hid_how_fast_constants_are() -> None:
    figures = {"noop_rps": 30_000.0, "in_process": {"single_rps": 3_000.0}}
    assert not is_client_bound({"noop": 0.95, "c32": 0.5}, figures)
    assert is_client_bound({"noop": 0.5, "c32": 0.95}, figures)
    assert is_client_bound({"noop": 0.95}, figures | {"in_process": {"single_rps": 40_000.0}})


# -- Swaps -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_models(store: Store, tiny: TinyModel, other_tiny: TinyModel) -> Store:
    store.add(other_tiny.artifact)
    store.point_at(tiny.artifact.digest, other_tiny.artifact.digest)
    return store


def test_swaps_under_load_are_seen_and_no_answer_is_mixed(
    two_models: Store, tiny: TinyModel, other_tiny: TinyModel, serve_store: ServeStore
) -> None:
    reviews = choose_reviews(300)
    digests = (tiny.artifact.digest, other_tiny.artifact.digest)
    both = {
        digest: compute_probabilities(two_models.path / "artifacts" / digest, reviews) for digest in digests
    }
    rows = choose_telling(both)
    assert len(rows) > 20
    requests = [write_request([reviews[row]]) for row in rows]
    expected = {digest: found[rows] for digest, found in both.items()}
    with serve_store(two_models) as server:
        port = int(server.url.rsplit(":", 1)[1])
        wait_until(lambda: _serves(server.url, digests[0]), "the first model is served")
        swaps = swap_under_load(port, server.process.pid, two_models.path, requests, expected, 3)
        assert (swaps.swaps, swaps.failed, swaps.mixed) == (3, 0, 0)
        assert swaps.answers > 3
        assert swaps.rss_after_mb > 50
        # And what would be mixed is seen: the same service, asked by someone with the models' answers exchanged.
        exchanged = dict(zip(expected, reversed(expected.values()), strict=True))
        point_at(two_models.path, digests[0], digests[1])
        wait_until(lambda: _serves(server.url, digests[0]), "the first model is back")
        mixed = swap_under_load(port, server.process.pid, two_models.path, requests, exchanged, 1)
        assert mixed.mixed == mixed.answers > 0


def _serves(url: str, digest: str) -> bool:
    import httpx

    return bool(httpx.get(f"{url}/readyz", timeout=5).json()["model"] == digest)


# -- The command -------------------------------------------------------------------------------------------------

KEYS = {
    "single": {"p50_ms", "p99_ms", "rps_c1", "rps_c32"},
    "batch64_texts_per_s": None,
    "in_process": {"single_rps", "batch64_texts_per_s"},
    "noop_rps": None,
    "ratio_single": None,
    "ratio_batch": None,
    "overload": {"offered_x", "goodput_ratio", "p99_ms"},
    "cold_start_s": None,
    "rss_mb": None,
    "snownlp_texts_per_s": None,
    "torch_eager_texts_per_s": None,
}


# As the quick one, in a fraction of its time.
TRIAL = Plan(rounds=1, seconds=0.4, overload_seconds=0.5, overloads=2, starts=1, swaps=3, reviews=256)


@needs_two_cores
def test_the_last_line_is_json_with_every_figure_and_the_store_is_left_as_it_was(
    two_models: Store,
    tiny: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ml.bench.__main__.QUICK", TRIAL)
    pointer = (two_models.path / "champion.json").read_bytes()
    status = main(["--quick", "--soak", "200", "--store", two_models.path.as_uri()])
    output = capsys.readouterr()
    assert status == 0, output.err
    figures = json.loads(output.out.splitlines()[-1])
    for name, inner in KEYS.items():
        assert name in figures
        assert inner is None or inner <= set(figures[name])
        assert inner is not None or figures[name] > 0, name
    assert figures["answers_checked"] > 0
    assert figures["answers_wrong"] == figures["requests_not_answered"] == 0
    assert figures["swaps"]["swaps"] == 3
    assert figures["swaps"]["failed"] == figures["swaps"]["mixed"] == 0
    assert figures["overload"]["offered_x"] == pytest.approx(
        3, rel=0.3
    )  # of a capacity measured anew each time
    assert figures["soak"]["failed"] == 0
    assert len(figures["soak"]["rss_mb"]) == 20
    assert figures["model"]["digest"] == tiny.artifact.digest
    assert (two_models.path / "champion.json").read_bytes() == pointer


@needs_two_cores
def test_an_interrupt_stops_what_was_started(two_models: Store) -> None:
    command = [sys.executable, "-m", "ml.bench", "--quick", "--store", two_models.path.as_uri()]
    with psutil.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: bool(services_of(process)), "the service runs", seconds=60)
        children = process.children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert "Traceback" not in errors
    assert "interrupted" in errors
    # Python's own tracker of what processes share ends a moment after them.
    wait_until(lambda: not any(child.is_running() for child in children), "all of them have ended")


def test_an_overload_is_compared_with_the_capacity_around_it_and_a_change_of_pace_decides_nothing() -> None:
    def asked(rate: int, refused: int = 0) -> Traffic:
        return Traffic(1.0, {200: rate, 429: refused}, np.full(rate, 10.0), 0.1, 10.0, [])

    quick, slow = asked(1000), asked(500)
    found = summarize_overloads(
        [
            Overload(quick, asked(900, refused=2100), quick),
            Overload(quick, asked(450, refused=2550), slow),  # the machine became slow meanwhile
            Overload(slow, asked(450, refused=1050), slow),
        ]
    )
    assert found["goodput_ratio"] == 0.9
    assert found["each_goodput_ratio"] == [0.9, 0.6, 0.9]
    assert found["each_capacity_rps"] == [1000, 1000, 500, 500]
    assert (found["offered_x"], found["p99_ratio"], found["statuses"]["429"]) == (3.0, 1.0, 5700)


def test_an_overload_in_which_nothing_is_answered_has_no_latency() -> None:
    nothing = Traffic(1.0, {429: 300}, np.zeros(0), 0.1, 10.0, [])
    capacity = Traffic(1.0, {200: 100}, np.ones(100), 0.1, 10.0, [])
    found = summarize_overloads([Overload(capacity, nothing, capacity)])
    assert (found["goodput_ratio"], found["p99_ms"], found["p99_ratio"]) == (0.0, None, None)


def services_of(process: psutil.Popen) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ml.serve" in child.cmdline():
                found.append(child)
    return found


def test_a_store_without_a_champion_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", tmp_path.as_uri()]) == 1
    assert "champion.json: missing" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        main(["--store", (tmp_path / "absent").as_uri()])
    assert raised.value.code == 2
    assert "no store is there" in capsys.readouterr().err


def test_a_store_is_copied_with_both_models(two_models: Store, tmp_path: Path) -> None:
    models = models_of_store(two_models.path)
    copy = copy_to_store(models, tmp_path / "copy")
    shutil.rmtree(two_models.path)
    assert replace(models_of_store(copy), folder=models.folder) == models
