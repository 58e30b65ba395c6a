"""Several processes behind one address, as `--workers` starts them."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ml.client import InferenceClient, InferenceError
from ml.serve.fleet import Fleet, WorkerState, combine_states
from ml.serve.workers import kept_for_good
from tests.ml.conftest import ROOT, Store, TinyModel
from tests.ml.serve.test_process import Load
from tests.servers import find_free_port, wait_until

WORKERS = 3
TEXTS = {"texts": ["很好看", "太差了"]}


def test_the_garbage_collector_leaves_alone_what_a_start_makes_and_looks_after_the_rest() -> None:
    try:
        with kept_for_good():
            made_at_the_start = [object()]
        made_later = [object()]
        looked_at = {id(found) for found in gc.get_objects()}
        assert gc.isenabled()
        assert id(made_at_the_start) not in looked_at
        assert id(made_later) in looked_at
    finally:
        gc.unfreeze()


@contextmanager
def serve(store: Store, log: Path, *options: str, workers: int = WORKERS) -> Iterator[tuple[str, int]]:
    """Run the command with so many processes; gives its address and the pid of the one above them."""
    port = find_free_port()
    command = [sys.executable, "-m", "ml.serve", "--store", store.path.as_uri(), "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(log.parent)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(workers), *options],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_live(url), f"the service is up: {log.read_text()}")
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_live(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code in (200, 503)
    except httpx.TransportError:
        return False


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def counted(figures: str, name: str) -> float:
    """Add up a figure over its labels."""
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", figures, re.MULTILINE)
    return sum(float(value) for value in found)


def test_all_processes_answer_and_any_of_them_gives_the_figures_of_all(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    store.point_at(tiny.artifact.digest)
    with serve(store, tmp_path / "serve.log") as (url, pid):
        wait_until(lambda: len(children(pid)) == WORKERS, "all processes run")
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the model is served")
        before = [process.cpu_times() for process in children(pid)]
        for _ in range(60):  # each over a connection of its own, which the kernel gives to one of them
            assert httpx.post(f"{url}/v1/predict", json=TEXTS).json()["model"] == tiny.artifact.digest
        after = [process.cpu_times() for process in children(pid)]
        assert all(sum(new[:2]) > sum(old[:2]) for old, new in zip(before, after, strict=True))
        for _ in range(5):
            figures = httpx.get(f"{url}/metrics").text
            assert counted(figures, "inference_texts_total") == 120
            assert 'inference_request_seconds_count{route="/v1/predict",status="200"} 60.0' in figures
            assert counted(figures, "inference_swaps_total") == WORKERS
            assert f'inference_model_info{{device="cpu",digest="{tiny.artifact.digest}"}} 1.0' in figures
            assert counted(figures, "inference_ready") == 1


def test_a_process_that_dies_is_started_again_and_its_counts_stay(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    store.point_at(tiny.artifact.digest)
    with serve(store, tmp_path / "serve.log", workers=2) as (url, pid):
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the model is served")
        wait_until(lambda: len(children(pid)) == 2, "both processes run")
        for _ in range(20):
            httpx.post(f"{url}/v1/predict", json=TEXTS)
        victim = children(pid)[0]
        victim.send_signal(signal.SIGKILL)
        wait_until(
            lambda: len(children(pid)) == 2 and victim.pid not in {one.pid for one in children(pid)},
            "another is started",
        )
        for _ in range(20):  # whoever reaches the new one waits for it
            assert httpx.post(f"{url}/v1/predict", json=TEXTS, timeout=20).status_code == 200
        readiness = httpx.get(f"{url}/readyz").json()
        assert (readiness["ready"], readiness["error"]) == (True, None)
        assert counted(httpx.get(f"{url}/metrics").text, "inference_texts_total") == 80


def test_told_to_stop_all_processes_answer_what_they_have_begun_and_leave_nothing(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    store.point_at(tiny.artifact.digest)
    answers: list[int] = []
    with serve(store, tmp_path / "serve.log", workers=2) as (url, pid):
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the model is served")
        processes = children(pid)
        long = {"texts": ["很好看，强烈推荐" * 1000] * 256}

        def ask() -> None:
            response = httpx.post(f"{url}/v1/predict", json=long, timeout=60)
            answers.append(len(response.json()["predictions"]))

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        wait_until(
            lambda: counted(httpx.get(f"{url}/metrics", timeout=20).text, "inference_queue_depth") == 4,
            "all four are being computed",
            30,
        )
        assert not answers
        os.kill(pid, signal.SIGTERM)
        for thread in asking:
            thread.join(timeout=60)
        psutil.wait_procs(processes, timeout=20)
        assert not any(process.is_running() for process in processes)
    assert answers == [256] * 4
    assert not list(tmp_path.glob("huisheng-serve-*"))


def test_the_processes_end_with_the_one_that_started_them(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    store.point_at(tiny.artifact.digest)
    with serve(store, tmp_path / "serve.log", workers=2) as (url, pid):
        wait_until(lambda: len(children(pid)) == 2, "both processes run")
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the model is served")
        processes = children(pid)
        os.kill(pid, signal.SIGKILL)
        gone, _ = psutil.wait_procs(processes, timeout=10)
        assert len(gone) == 2


def test_a_taken_address_is_refused_even_if_its_owner_shares_it(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    with serve(store, tmp_path / "serve.log", workers=2) as (url, _):
        command = [sys.executable, "-m", "ml.serve", "--store", store.path.as_uri(), "--workers", "2"]
        second = subprocess.run(
            [*command, "--port", url.rpartition(":")[2]], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 1
        assert "cannot listen" in second.stderr


def test_swaps_under_load_fail_no_request_and_readiness_names_a_model_only_when_all_serve_it(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, tmp_path: Path
) -> None:
    store.add(other_tiny.artifact)
    store.point_at(tiny.artifact.digest)
    first, second = tiny.artifact.digest, other_tiny.artifact.digest
    with serve(store, tmp_path / "serve.log") as (url, _), InferenceClient(url, 20) as client:
        wait_until(lambda: client.ready().model == first, "the first model is served")
        with Load(url) as load:
            for digest in [second, first] * 3:
                store.point_at(digest)
                wait_until(lambda wanted=digest: client.ready().model == wanted, f"{digest} is served")
                for _ in range(6):  # fresh connections reach every process
                    answer = httpx.post(f"{url}/v1/predict", json=TEXTS, timeout=20).json()
                    assert answer["model"] == digest
                    assert httpx.get(f"{url}/readyz").json()["model"] == digest
        assert load.failures == []
        assert {answer.model for answer in load.answers} == {first, second}


def test_a_damaged_artifact_is_reported_by_every_process(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, tmp_path: Path
) -> None:
    path = store.add(other_tiny.artifact) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    store.point_at(tiny.artifact.digest)
    with serve(store, tmp_path / "serve.log") as (url, _), InferenceClient(url, 20) as client:
        wait_until(lambda: client.ready().model == tiny.artifact.digest, "the first model is served")
        store.point_at(other_tiny.artifact.digest)
        wait_until(lambda: client.ready().error is not None, "the failure is reported")
        for _ in range(10):
            with InferenceClient(url, 20) as fresh:
                readiness = fresh.ready()
            assert (readiness.ready, readiness.model) == (True, tiny.artifact.digest)
            assert "model.onnx" in str(readiness.error)


def test_the_service_gives_up_when_its_processes_die_at_once(store: Store, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOST": "127.0.0.1"}
    code = (
        "import ml.serve.workers as w, sys, pathlib; from ml.serve.settings import ServeSettings;"
        "w._serve = lambda *_, **__: sys.exit(3);"
        f"sys.exit(w.serve_with_workers(ServeSettings(pathlib.Path({str(store.path)!r})), '127.0.0.1', 0, 2))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment
    )
    assert result.returncode == 1
    assert not list(tmp_path.glob("huisheng-serve-*"))


A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("states", "model", "ready", "error"),
    [
        ([WorkerState(A, A, None, 1), WorkerState(A, A, None, 1)], A, True, None),
        ([WorkerState(A, B, None, 2), WorkerState(B, B, None, 2)], A, True, None),
        ([WorkerState(A, A, None, 1), WorkerState(B, B, None, 2)], A, True, None),
        ([WorkerState(B, B, None, 2), WorkerState(A, A, None, 1)], A, True, None),
        ([WorkerState(B, B, None, 2), WorkerState(B, B, None, 3)], B, True, None),
        ([WorkerState(B, B, None, 2), WorkerState(None, B, "is being loaded", 3)], B, True, None),
        (
            [WorkerState(B, B, None, 2), WorkerState(None, None, "no model", 0, reached=True)],
            None,
            False,
            None,
        ),
        (
            [WorkerState(B, B, None, 2), WorkerState(None, B, "loading", 3, reached=True)],
            None,
            False,
            "loading",
        ),
        ([WorkerState(A, B, "damaged", 2), WorkerState(A, B, None, 2)], A, True, "damaged"),
        ([WorkerState(A, "c" * 64, "damaged", 2), WorkerState(A, B, None, 3)], A, True, None),
        ([WorkerState(None, None, "x"), WorkerState(None, B, "y", 1)], None, False, "y"),
    ],
)
def test_the_service_serves_a_model_once_all_that_answer_serve_it(
    states: list[WorkerState], model: str | None, ready: bool, error: str | None
) -> None:
    found = combine_states(states)
    assert (found.model, found.ready, found.error) == (model, ready, error)


def test_a_state_is_read_by_the_others(tmp_path: Path) -> None:
    one, other = Fleet(tmp_path), Fleet(tmp_path)
    one.publish(WorkerState(A, A, None))
    assert other.state() == WorkerState(A, A, None)
    assert json.loads(next(tmp_path.glob("worker-*.json")).read_text())["model"] == A


def test_a_single_process_makes_no_folders(store: Store, tiny: TinyModel, tmp_path: Path) -> None:
    store.point_at(tiny.artifact.digest)
    with serve(store, tmp_path / "serve.log", workers=1) as (url, pid):
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the model is served")
        assert children(pid) == []
        assert not list(tmp_path.glob("huisheng-serve-*"))


def test_a_client_sees_the_service_refuse_rather_than_fail_without_a_model(
    store: Store, tmp_path: Path
) -> None:
    with serve(store, tmp_path / "serve.log", workers=2) as (url, _), InferenceClient(url, 20) as client:
        for _ in range(4):
            with pytest.raises(InferenceError, match="no model is being served"):
                client.predict(["很好"])
