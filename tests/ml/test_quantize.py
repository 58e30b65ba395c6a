from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from ml import quantize
from ml.artifact import QUANTIZED, Artifact, ArtifactError, load_artifact, write_artifact
from ml.data import Example
from ml.encoding import TextEncoder
from ml.export import build_onnx, export_artifact, model_weights
from ml.predict import OnnxNetwork, Predictor, check_golden
from ml.quantize import MAX_BATCH_DIFFERENCE, MIN_SAMPLES, quantize_graph
from ml.tokenizer import TokenizerSettings
from ml.wide import take_wide_part
from tests.ml.conftest import MAX_LENGTH, TinyModel


@pytest.fixture(scope="module")
def artifact(tiny_int8: TinyModel) -> Artifact:
    return load_artifact(tiny_int8.artifact.path, tiny_int8.artifact.digest)


def export_judged(tiny: TinyModel, parent: Path, validation: list[Example]) -> Artifact:
    written = export_artifact(
        parent,
        weights=model_weights(tiny.model),
        config=tiny.config,
        tokenizer=TokenizerSettings(),
        vocabulary=tiny.vocabulary,
        max_length=MAX_LENGTH,
        validation=validation,
    )
    return load_artifact(written.path, written.digest)


def test_a_model_that_is_as_good_in_8_bits_is_served_in_8_bits(
    artifact: Artifact, held_out: list[Example]
) -> None:
    found = artifact.quantization
    assert (found.served, found.samples) == ("int8", len(held_out))
    assert found.figures is not None
    assert found.figures.macro_f1_fp32 - found.figures.macro_f1_int8 <= 0.002
    assert found.figures.same_labels >= 0.995
    assert 0 < found.figures.max_abs_difference < 0.05
    assert 0 < found.figures.max_batch_difference <= MAX_BATCH_DIFFERENCE
    assert artifact.onnx_int8 is not None
    assert Predictor(artifact).precision == "int8"
    operators = {node.op_type for node in onnx.load_model_from_string(artifact.onnx_int8).graph.node}
    assert "DynamicQuantizeLSTM" in operators
    assert "LSTM" not in operators


def test_the_figures_are_those_of_the_graphs(artifact: Artifact, held_out: list[Example]) -> None:
    assert artifact.onnx_int8 is not None
    assert artifact.quantization.figures is not None
    encoder = TextEncoder(artifact.tokenizer, artifact.vocabulary, artifact.max_length)
    encoded = encoder.encode([example.text for example in held_out])
    wide = take_wide_part(artifact.weights)
    exact = OnnxNetwork(artifact.onnx, wide).probabilities(encoded)
    quantized = OnnxNetwork(artifact.onnx_int8, wide).probabilities(encoded)
    same = (exact.argmax(axis=1) == quantized.argmax(axis=1)).mean()
    assert artifact.quantization.figures.same_labels == pytest.approx(same, abs=1e-6)
    difference = np.abs(exact - quantized).max()
    assert artifact.quantization.figures.max_abs_difference == pytest.approx(difference, abs=1e-4)


def test_the_same_weights_make_the_same_artifact_in_8_bits(
    tiny_int8: TinyModel, tmp_path: Path, held_out: list[Example]
) -> None:
    assert export_judged(tiny_int8, tmp_path, held_out).digest == tiny_int8.artifact.digest
    graph = build_onnx(tiny_int8.model)
    assert quantize_graph(graph) == quantize_graph(graph)


def test_what_8_bits_say_of_a_text_hardly_depends_on_its_companions_and_their_padding(
    artifact: Artifact, held_out: list[Example]
) -> None:
    predictor = Predictor(artifact)
    texts = [example.text for example in held_out[:300]] + ["", "很好 " * 3000, "好"]
    together = predictor.probabilities(texts)
    alone = np.concatenate([predictor.probabilities([text]) for text in texts])
    assert np.abs(together - alone).max() <= MAX_BATCH_DIFFERENCE
    # In one batch whatever the plan would be: mostly padding.
    pair = predictor.encode(texts[-2:])
    network = predictor._network
    padded = network._run(
        pair.by_time(np.arange(2)), pair.lengths.astype(np.int32), network._wide_logits(pair)
    )
    assert np.abs(padded - alone[-2:]).max() <= MAX_BATCH_DIFFERENCE


@pytest.mark.parametrize("count", [0, MIN_SAMPLES - 1])
def test_without_enough_samples_fp32_is_kept_and_said_so(
    tiny: TinyModel, tmp_path: Path, held_out: list[Example], count: int
) -> None:
    artifact = export_judged(tiny, tmp_path, held_out[:count])
    assert artifact.onnx_int8 is None
    assert (artifact.quantization.served, artifact.quantization.figures) == ("fp32", None)
    assert artifact.quantization.reason.startswith(f"{count} labelled samples are too few")
    assert Predictor(artifact).precision == "fp32"


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_F1_DROP", -1.0, "macro-F1 drops by"),
        ("MIN_SAME_LABELS", 1.01, "keep their label, wanted 101.0%"),
        ("MAX_BATCH_DIFFERENCE", 0.0, "a text among others differs by"),
    ],
)
def test_a_model_beyond_a_limit_is_kept_in_fp32_and_the_numbers_say_why(
    tiny: TinyModel,
    tmp_path: Path,
    held_out: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
    reason: str,
) -> None:
    monkeypatch.setattr(quantize, limit, value)
    artifact = export_judged(tiny, tmp_path, held_out)
    assert artifact.quantization.served == "fp32"
    assert reason in artifact.quantization.reason
    assert artifact.quantization.figures is not None
    assert artifact.onnx_int8 is None
    assert not (artifact.path / QUANTIZED).exists()


def test_weights_that_8_bits_cannot_hold_fail_the_gate(
    tiny: TinyModel, tmp_path: Path, held_out: list[Example]
) -> None:
    """One weight of a gate far beyond the others leaves them no step of the scale to stand on."""
    weights = model_weights(tiny.model)
    for name in ("forward_lstm.weight_ih_l0", "backward_lstm.weight_ih_l0"):
        spoilt = weights[name] * np.float32(20)
        spoilt[:, 0] *= np.float32(200)
        weights[name] = spoilt
    written = export_artifact(
        tmp_path,
        weights=weights,
        config=tiny.config,
        tokenizer=TokenizerSettings(),
        vocabulary=tiny.vocabulary,
        max_length=MAX_LENGTH,
        validation=held_out,
    )
    found = load_artifact(written.path, written.digest).quantization
    assert found.served == "fp32", found
    assert found.figures is not None


def test_the_golden_texts_get_the_answers_recorded_for_8_bits(artifact: Artifact) -> None:
    predictor = Predictor(artifact)
    check_golden(predictor, artifact)
    assert any(case.int8 != case.probabilities for case in artifact.golden)
    for int8 in (None, (0.9, 0.05, 0.05)):
        wrong = replace(artifact, golden=(replace(artifact.golden[0], int8=int8),))
        with pytest.raises(ArtifactError, match=r"golden\.json: probabilities of"):
            check_golden(predictor, wrong)


def test_another_models_answers_do_not_pass_for_ours_in_8_bits(
    artifact: Artifact, other_tiny: TinyModel
) -> None:
    other = replace(artifact, onnx_int8=quantize_graph(build_onnx(other_tiny.model)))
    with pytest.raises(ArtifactError, match=r"golden\.json"):
        check_golden(Predictor(other), artifact)


def test_a_changed_graph_of_8_bits_is_refused_by_name(artifact: Artifact, tmp_path: Path) -> None:
    written = write_artifact(tmp_path, artifact)
    assert written.digest == artifact.digest
    path = written.path / QUANTIZED
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.int8\.onnx: its sha256 is"):
        load_artifact(written.path, written.digest)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"model\.int8\.onnx: missing"):
        load_artifact(written.path, written.digest)


def test_a_graph_of_8_bits_that_the_manifest_does_not_list_is_refused(
    tiny: TinyModel, artifact: Artifact, tmp_path: Path
) -> None:
    written = write_artifact(tmp_path, load_artifact(tiny.artifact.path, tiny.artifact.digest))
    assert artifact.onnx_int8 is not None
    (written.path / QUANTIZED).write_bytes(artifact.onnx_int8)
    with pytest.raises(ArtifactError, match=r"model\.int8\.onnx: not part of the artifact"):
        load_artifact(written.path, written.digest)


def test_the_artifact_says_in_plain_json_what_is_served_and_why(artifact: Artifact) -> None:
    document = json.loads((artifact.path / "parity.json").read_bytes())
    assert document["max_abs_difference"] <= 1e-4
    assert document["quantization"]["served"] == "int8"
    assert set(document["quantization"]["figures"]) == {
        "macro_f1_fp32",
        "macro_f1_int8",
        "same_labels",
        "max_abs_difference",
        "max_batch_difference",
    }
