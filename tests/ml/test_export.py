from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ml.artifact import ArtifactError, load_artifact
from ml.bootstrap import BootstrapCorpus
from ml.data import Example
from ml.encoding import TextEncoder
from ml.export import (
    GOLDEN_TEXTS,
    MAX_DIFFERENCE,
    build_onnx,
    check_parity,
    export_artifact,
    model_weights,
)
from ml.label_set import LABELS
from ml.model import ModelConfig, build_model, initial_parameters
from ml.predict import OnnxNetwork
from ml.text import normalize_text
from ml.tokenizer import TokenizerSettings
from ml.vocabulary import Vocabulary
from ml.wide import take_wide_part
from tests.ml.conftest import MAX_LENGTH, TinyModel


def export_again(tiny: TinyModel, parent: Path, **changes: object) -> str:
    arguments = {
        "weights": model_weights(tiny.model),
        "config": tiny.config,
        "tokenizer": TokenizerSettings(),
        "vocabulary": tiny.vocabulary,
        "max_length": MAX_LENGTH,
        **changes,
    }
    return export_artifact(parent, **arguments).digest  # type: ignore[arg-type]


def test_the_same_weights_make_the_same_artifact(tiny: TinyModel, tmp_path: Path) -> None:
    assert export_again(tiny, tmp_path) == tiny.artifact.digest


def test_the_graph_and_the_network_agree_on_texts_of_every_length(
    tiny: TinyModel, corpus: BootstrapCorpus
) -> None:
    texts = [example.text for example in corpus.examples[::29]]
    encoder = TextEncoder(TokenizerSettings(), tiny.vocabulary, 200)
    lengths = encoder.encode(texts).lengths
    assert lengths.min() < 4
    assert lengths.max() == 200
    parity = check_parity(tiny.model, build_onnx(tiny.model), encoder, texts)
    assert parity.samples == len(texts)
    assert parity.max_abs_difference < 1e-5
    assert parity.same_labels


@pytest.mark.parametrize(
    ("embedding_dim", "hidden_dim", "subwords", "grams"),
    [(3, 7, 0, 0), (16, 4, 64, 0), (5, 3, 0, 99), (4, 4, 50, 50)],
)
def test_graph_and_network_agree_for_random_weights_of_any_size(
    vocabulary: Vocabulary, embedding_dim: int, hidden_dim: int, subwords: int, grams: int
) -> None:
    config = ModelConfig(len(vocabulary), embedding_dim, hidden_dim, subwords, grams)
    model = build_model(config, initial_parameters(config, seed=8), words=vocabulary.tokens).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        for rows in (getattr(model, "subwords", None), getattr(model, "grams", None)):
            if rows is not None:
                rows.weight[0] = 0.0  # of the padding, which training never touches
    encoder = TextEncoder(TokenizerSettings(), vocabulary, MAX_LENGTH)
    parity = check_parity(model, build_onnx(model), encoder, GOLDEN_TEXTS)
    assert parity.max_abs_difference < 1e-5


def test_a_graph_of_other_weights_is_found_out(tiny: TinyModel, other_tiny: TinyModel) -> None:
    encoder = TextEncoder(TokenizerSettings(), tiny.vocabulary, MAX_LENGTH)
    graph = build_onnx(other_tiny.model)
    assert check_parity(tiny.model, graph, encoder, GOLDEN_TEXTS).max_abs_difference > MAX_DIFFERENCE


def test_an_export_that_disagrees_writes_nothing(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {
        name: torch.from_numpy(np.ascontiguousarray(value[::-1]) if "weight_hh" in name else value)
        for name, value in model_weights(tiny.model).items()
    }
    wrong_gates = build_onnx(build_model(tiny.config, wrong, words=tiny.vocabulary.tokens))
    monkeypatch.setattr("ml.export.build_onnx", lambda model: wrong_gates)
    with pytest.raises(ArtifactError, match="disagree"):
        export_again(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_graph_is_valid_and_takes_any_batch_and_length(tiny: TinyModel) -> None:
    graph = onnx.load_model_from_string(build_onnx(tiny.model))
    onnx.checker.check_model(graph, full_check=True)
    network = OnnxNetwork(graph.SerializeToString(), take_wide_part(model_weights(tiny.model)))
    encoder = TextEncoder(TokenizerSettings(), tiny.vocabulary, 300)
    for texts in (["好"], ["很好吃。" * 300], ["很好", ""] * 9):
        probabilities = network.probabilities(encoder.encode(texts))
        assert probabilities.shape == (len(texts), len(LABELS))
        assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_golden_texts_cover_what_is_odd_about_texts(tiny: TinyModel) -> None:
    golden = load_artifact(tiny.artifact.path, tiny.artifact.digest).golden
    assert len(golden) >= 8
    texts = [case.text for case in golden]
    assert any(normalize_text(text) == "" for text in texts)
    assert any(len(text) > 500 for text in texts)
    assert any("😀" in text for text in texts)
    assert all(sum(case.probabilities) == pytest.approx(1, abs=1e-3) for case in golden)
    # Golden texts that all get one answer would not tell models apart.
    assert len({case.probabilities for case in golden}) > len(golden) // 2


def test_held_out_texts_join_the_parity_check(tiny: TinyModel, tmp_path: Path) -> None:
    held_out = [Example("很好", "positive"), Example("很差", "negative"), Example("还行", "neutral")]
    digest = export_again(tiny, tmp_path, validation=held_out)
    assert load_artifact(tmp_path / digest, digest).parity.samples == len(GOLDEN_TEXTS) + 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(
    tiny: TinyModel, tmp_path: Path, value: float
) -> None:
    weights = model_weights(tiny.model)
    weights["output.weight"] = weights["output.weight"].copy()
    weights["output.weight"][0, 0] = value
    with pytest.raises(ArtifactError, match=r"output\.weight holds a value that is not finite"):
        export_again(tiny, tmp_path, weights=weights)


def test_weights_that_do_not_fit_are_refused_by_name(tiny: TinyModel, tmp_path: Path) -> None:
    weights = model_weights(tiny.model)
    with pytest.raises(ArtifactError, match=r"output\.bias has shape \(2,\), expected \(3,\)"):
        export_again(tiny, tmp_path, weights={**weights, "output.bias": np.zeros(2, np.float32)})
    with pytest.raises(ArtifactError, match="extra has shape"):
        export_again(tiny, tmp_path, weights={**weights, "extra": np.zeros(2, np.float32)})
    with pytest.raises(ArtifactError, match="knows 501 tokens, the vocabulary 500"):
        export_again(tiny, tmp_path, config=replace(tiny.config, vocabulary_size=501))
