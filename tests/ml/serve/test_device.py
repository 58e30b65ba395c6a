"""Which device serves, what is said of it, and what happens without it."""

from __future__ import annotations

import httpx
import onnxruntime
import pytest

from ml.artifact import load_artifact
from ml.predict import Predictor
from ml.serve.__main__ import main
from tests.ml.conftest import Store, TinyModel
from tests.ml.serve.conftest import ServeHere
from tests.ml.serve.test_champion import watcher_over

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
without_cuda = pytest.mark.skipif(HAS_CUDA, reason="ONNX Runtime has CUDA here")


@pytest.mark.parametrize("named", ["argument", "environment"])
@without_cuda
def test_cuda_that_is_not_there_is_refused_at_the_start_with_the_package_that_brings_it(
    store: Store,
    tiny: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: str,
) -> None:
    store.point_at(tiny.artifact.digest)
    arguments = ["--store", store.path.as_uri(), "--port", "0"]
    if named == "environment":
        monkeypatch.setenv("INFERENCE_DEVICE", "cuda")
    else:
        arguments += ["--device", "cuda"]
    assert main(arguments) == 1
    assert "Install onnxruntime-gpu" in capsys.readouterr().err


def test_a_device_in_the_environment_that_nobody_knows_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERENCE_DEVICE", "tpu")
    with pytest.raises(SystemExit) as end:
        main(["--store", "file:///nowhere"])
    assert end.value.code == 2
    assert "'tpu'" in capsys.readouterr().err


@without_cuda
def test_a_device_that_fails_later_is_reported_like_a_bad_model(store: Store, tiny: TinyModel) -> None:
    """As where the runtime has CUDA and the machine no driver: nothing can tell before there is a model."""
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store, device="cuda")
    watcher.look_once()
    assert watcher.state.model is None
    assert "device cuda cannot be used" in str(watcher.state.error)


@pytest.mark.parametrize("choice", ["auto", "cpu"])
def test_readiness_and_figures_say_which_device_serves(serve_here: ServeHere, choice: str) -> None:
    used = "cuda" if HAS_CUDA and choice == "auto" else "cpu"
    with serve_here(device=choice) as served:
        assert httpx.get(f"{served.url}/readyz").json()["device"] == used
        assert f'inference_model_info{{device="{used}",' in served.figures()


@pytest.mark.skipif(not HAS_CUDA, reason="ONNX Runtime has no CUDA provider here")
def test_a_service_on_cuda_answers_as_the_network_does_on_the_cpu(
    serve_here: ServeHere, tiny: TinyModel
) -> None:
    texts = ["很好看，强烈推荐", "太差了，不要买", "😀"]
    expected = Predictor(load_artifact(tiny.artifact.path, tiny.artifact.digest)).predict(texts)
    with serve_here(device="cuda") as served:
        answer = httpx.post(f"{served.url}/v1/predict", json={"texts": texts}, timeout=30).json()
        assert httpx.get(f"{served.url}/readyz").json()["device"] == "cuda"
    for found, wanted in zip(answer["predictions"], expected, strict=True):
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-3)
