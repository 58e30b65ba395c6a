from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.artifact import Artifact, ArtifactError, GoldenCase, load_artifact
from ml.device import DeviceUnavailable
from ml.label_set import LABELS
from ml.predict import PADDING_OF_LENGTH, OnnxNetwork, Predictor, check_golden, plan_batches
from tests.ml.conftest import ROOT, TinyModel

ODD_TEXTS = ["", " \n", "😀", "\x00", "\ud800", "\u200b", "好" * 10_000, "a", "。。。", "很好 " * 3000]


@pytest.fixture(scope="module")
def artifact(tiny: TinyModel) -> Artifact:
    return load_artifact(tiny.artifact.path, tiny.artifact.digest)


@pytest.fixture(scope="module")
def predictor(artifact: Artifact) -> Predictor:
    return Predictor(artifact)


def test_every_text_gets_a_label_a_score_and_probabilities(predictor: Predictor) -> None:
    predictions = predictor.predict(ODD_TEXTS)
    assert len(predictions) == len(ODD_TEXTS)
    for prediction in predictions:
        assert tuple(prediction.probabilities) == LABELS
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.score == prediction.probabilities[prediction.label]
        assert prediction.score == max(prediction.probabilities.values())


def test_answers_do_not_depend_on_the_other_texts_and_keep_their_order(
    predictor: Predictor, some_examples: list[object]
) -> None:
    texts = [example.text for example in some_examples[:150]] + ODD_TEXTS  # type: ignore[attr-defined]
    together = predictor.predict(texts)
    for text, found in zip(texts, together, strict=True):
        alone = predictor.predict([text])[0]
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-5)
    backwards = predictor.predict(texts[::-1])[::-1]
    assert [one.label for one in backwards] == [one.label for one in together]


def test_encoding_and_asking_the_network_are_two_steps_of_one_prediction(predictor: Predictor) -> None:
    texts = ["很好看", "太差了，再也不会买了", "", "一般" * 40]
    encoded = predictor.encode(texts)
    assert encoded.lengths.tolist()[2:] == [1, 32]
    assert predictor.predictions_of(predictor.probabilities_of(encoded)) == predictor.predict(texts)


@given(
    st.lists(st.integers(1, 300), max_size=120),
    st.integers(1, 20),
    st.integers(1, 500),
    st.integers(0, 100),
)
def test_every_text_is_in_one_batch_and_no_batch_is_beyond_its_limits(
    lengths: list[int], max_texts: int, max_tokens: int, max_padding: int
) -> None:
    limits = {"max_texts": max_texts, "max_tokens": max_tokens, "max_padding": max_padding}
    ascending = sorted(lengths)
    batches = [ascending[batch] for batch in plan_batches(ascending, **limits)]
    assert [length for batch in batches for length in batch] == ascending
    for batch in batches:
        assert len(batch) == 1 or (len(batch) <= max_texts and len(batch) * batch[-1] <= max_tokens)
        steps = itertools.pairwise(batch)
        assert all(
            count * (longer - shorter) <= max_padding + PADDING_OF_LENGTH * longer
            for count, (shorter, longer) in enumerate(steps, start=1)
        )


def test_a_long_text_does_not_make_many_short_ones_long() -> None:
    assert list(plan_batches([3, 3, 4, 120])) == [slice(0, 3), slice(3, 4)]
    assert next(iter(plan_batches([32] * 70))) == slice(0, 64)


def test_no_texts_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_several_threads_may_ask_at_once(predictor: Predictor) -> None:
    texts = ["物流很快，质量也好", "太差了", "一般"] * 20
    expected = [one.label for one in predictor.predict(texts)]
    answers: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: answers.append([one.label for one in predictor.predict(texts)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 8


def test_the_golden_texts_get_their_recorded_probabilities(predictor: Predictor, artifact: Artifact) -> None:
    check_golden(predictor, artifact)


@pytest.mark.parametrize("probabilities", [(0.9, 0.05, 0.05), (float("nan"),) * 3])
def test_another_answer_to_a_golden_text_is_refused(
    predictor: Predictor, artifact: Artifact, probabilities: tuple[float, ...]
) -> None:
    wrong = replace(artifact, golden=(*artifact.golden[:2], GoldenCase("很好看", probabilities)))
    with pytest.raises(ArtifactError, match=r"golden\.json: probabilities of '很好看'"):
        check_golden(predictor, wrong)


def test_another_models_answers_do_not_pass_for_ours(predictor: Predictor, other_tiny: TinyModel) -> None:
    other = load_artifact(other_tiny.artifact.path, other_tiny.artifact.digest)
    with pytest.raises(ArtifactError, match=r"golden\.json"):
        check_golden(predictor, other)


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        OnnxNetwork(b"not a graph")


def test_a_device_that_is_not_there_is_refused_and_what_to_do_is_said(artifact: Artifact) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has its CUDA provider here")
    with pytest.raises(DeviceUnavailable, match="device cuda cannot be used: .*Install onnxruntime-gpu"):
        Predictor(artifact, device="cuda")


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="ONNX Runtime has no CUDA provider on this machine",
)
def test_a_cuda_device_gives_the_answers_of_the_processor(artifact: Artifact) -> None:
    texts = ["很好看", "太差了，再也不会买了", ""] * 30
    on_device = Predictor(artifact, device="cuda")
    check_golden(on_device, artifact)
    difference = on_device.probabilities(texts) - Predictor(artifact).probabilities(texts)
    assert np.abs(difference).max() < 1e-3


def test_predicting_and_serving_need_neither_torch_nor_onnx() -> None:
    names = "ml.predict, ml.predict_command, ml.serve.app, ml.client"
    code = f"import sys, {names}; print(*{{'torch', 'onnx'}} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_the_clients_module_needs_no_inference_runtime() -> None:
    names = "ml.client, ml.text, ml.label_set, ml.metrics, ml.bootstrap, ml.training_config"
    code = f"import sys, {names}; print(*{{'torch', 'onnx', 'onnxruntime', 'fastapi'}} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
