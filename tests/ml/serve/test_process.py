"""The real service, in a process of its own, under load."""

from __future__ import annotations

import itertools
import signal
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from ml.artifact import load_artifact
from ml.client import InferenceClient, InferenceError, PredictResponse
from ml.predict import Predictor
from ml.serve.__main__ import main
from tests.ml.conftest import ServeStore, Store, TinyModel
from tests.servers import wait_until

TEXTS = ["很好看，强烈推荐", "太差了，不要买", "😀", "房间很干净但是服务员态度不好"]


class Load:
    """Threads that ask without pause until told to stop, keeping every answer and every failure."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self.answers: list[PredictResponse] = []
        self.failures: list[InferenceError] = []
        self._client = InferenceClient(url, 10)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self._client.predict(TEXTS))
            except InferenceError as error:
                self.failures.append(error)


def expected_probabilities(model: TinyModel) -> list[dict[str, float]]:
    predictor = Predictor(load_artifact(model.artifact.path, model.artifact.digest))
    return [prediction.probabilities for prediction in predictor.predict(TEXTS)]


def test_swapping_back_and_forth_under_load_drops_no_request_and_mixes_no_models(
    store: Store, serve_store: ServeStore, tiny: TinyModel, other_tiny: TinyModel
) -> None:
    store.add(other_tiny.artifact)
    store.point_at(tiny.artifact.digest)
    expected = {model.artifact.digest: expected_probabilities(model) for model in (tiny, other_tiny)}
    first, second = expected
    assert expected[first][0] != pytest.approx(expected[second][0], abs=1e-3)
    with serve_store(store) as server, InferenceClient(server.url, 10) as client:
        wait_until(lambda: client.ready().model == first, "the first model is served")
        with Load(server.url) as load:
            for digest in itertools.islice(itertools.cycle([second, first]), 8):
                store.point_at(digest)
                wait_until(lambda wanted=digest: client.ready().model == wanted, f"{digest} is served")
                before = len(load.answers)
                wait_until(lambda seen=before: len(load.answers) > seen + 20, "requests go on")
            load.stop()
    assert load.failures == []
    for answer in load.answers:
        for found, wanted in zip(answer.predictions, expected[answer.model], strict=True):
            assert found.probabilities == pytest.approx(wanted, abs=1e-5)
    served = Counter(answer.model for answer in load.answers)
    assert min(served[first], served[second]) > 40
    assert "Traceback" not in server.log.read_text()


def test_a_corrupted_artifact_named_by_the_pointer_leaves_the_old_one_serving(
    store: Store, serve_store: ServeStore, tiny: TinyModel, other_tiny: TinyModel
) -> None:
    path = store.add(other_tiny.artifact)
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "weights.safetensors").write_bytes(content)
    store.point_at(tiny.artifact.digest)
    with serve_store(store) as server, InferenceClient(server.url, 10) as client:
        wait_until(lambda: client.ready().ready, "the first model is served")
        with Load(server.url) as load:
            store.point_at(other_tiny.artifact.digest)
            wait_until(lambda: client.ready().wanted == other_tiny.artifact.digest, "the pointer is seen")
            wait_until(lambda: client.ready().error is not None, "the failure is reported")
            seen = len(load.answers)
            wait_until(lambda: len(load.answers) > seen + 20, "requests go on")
            load.stop()
        readiness = client.ready()
        assert (readiness.ready, readiness.model) == (True, tiny.artifact.digest)
        assert "weights.safetensors: its sha256 is" in str(readiness.error)
        (path / "weights.safetensors").write_bytes(
            (other_tiny.artifact.path / "weights.safetensors").read_bytes()
        )
        store.point_at(other_tiny.artifact.digest)
        wait_until(lambda: client.ready().model == other_tiny.artifact.digest, "the mended one is served")
        assert client.ready().error is None
    assert load.failures == []
    assert {answer.model for answer in load.answers} == {tiny.artifact.digest}
    assert "weights.safetensors: its sha256 is" in server.log.read_text()


def test_the_service_starts_without_a_model_and_takes_the_first_one_promoted(
    store: Store, serve_store: ServeStore, tiny: TinyModel
) -> None:
    with serve_store(store) as server, InferenceClient(server.url, 10) as client:
        wait_until(lambda: "missing" in str(client.ready().error), "the service says what is missing")
        with pytest.raises(InferenceError, match="no model is being served") as caught:
            client.predict(["很好"])
        assert caught.value.permanent is False
        store.point_at(tiny.artifact.digest)
        wait_until(lambda: client.ready().ready, "the promoted model is served")
        assert client.predict(["很好"]).model == tiny.artifact.digest


def test_told_to_stop_it_answers_what_it_has_begun(
    store: Store, serve_store: ServeStore, tiny: TinyModel
) -> None:
    store.point_at(tiny.artifact.digest)
    with serve_store(store) as server, InferenceClient(server.url, 30) as client:
        wait_until(lambda: client.ready().ready, "the model is served")
        answers: list[PredictResponse] = []
        long = ["很好看，强烈推荐" * 1000] * 256
        asking = threading.Thread(target=lambda: answers.append(client.predict(long)))
        asking.start()
        wait_until(
            lambda: "inference_queue_depth 1.0" in httpx.get(f"{server.url}/metrics", timeout=15).text,
            "the request is being computed",
        )
        still_computing = not answers
        server.process.send_signal(signal.SIGTERM)
        asking.join(timeout=30)
        server.process.wait(timeout=15)
    assert still_computing
    assert len(answers) == 1
    assert len(answers[0].predictions) == 256
    assert "Application shutdown complete" in server.log.read_text()


def test_a_wrong_store_is_refused_at_start_with_the_reason(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.ml.conftest import ROOT

    command = [sys.executable, "-m", "ml.serve", "--store", "s3://bucket"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "artifact store 's3://bucket': expected file:///absolute/path" in result.stderr


def test_a_port_in_the_environment_that_is_none_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "eighty")
    with pytest.raises(SystemExit) as end:
        main(["--store", "file:///nowhere"])
    assert end.value.code == 2
    assert "'eighty'" in capsys.readouterr().err
