from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ml.data import pad_rows
from ml.model import ModelConfig, SentimentLSTM, build_model, extend_vocabulary, initial_parameters
from ml.subwords import subword_ids
from ml.vocabulary import PAD

CONFIG = ModelConfig(vocabulary_size=50, embedding_dim=6, hidden_dim=5)
NO_GRAMS = torch.zeros(1, 0, dtype=torch.int64)
ROWS = [[4, 9, 2], [7], [3, 3, 8, 20, 33, 41, 5], [11, 12]]


@pytest.fixture
def model() -> SentimentLSTM:
    return build_model(CONFIG, initial_parameters(CONFIG, seed=3)).eval()


def logits_of(model: SentimentLSTM, rows: list[list[int]], extra_padding: int = 0) -> Tensor:
    token_ids = torch.from_numpy(pad_rows(rows))
    token_ids = nn.functional.pad(token_ids, (0, extra_padding), value=PAD)
    with torch.no_grad():
        return model(token_ids, torch.tensor([len(row) for row in rows]), NO_GRAMS)


def test_a_text_gets_the_same_logits_alone_in_a_batch_and_under_any_padding(model: SentimentLSTM) -> None:
    alone = torch.cat([logits_of(model, [row]) for row in ROWS])
    assert torch.allclose(logits_of(model, ROWS), alone, atol=1e-6)
    assert torch.allclose(logits_of(model, ROWS, extra_padding=40), alone, atol=1e-6)


def test_what_stands_in_the_padding_does_not_matter(model: SentimentLSTM) -> None:
    token_ids = torch.from_numpy(pad_rows(ROWS))
    lengths = torch.tensor([len(row) for row in ROWS])
    padding = torch.arange(token_ids.shape[1]) >= lengths[:, None]
    with torch.no_grad():
        garbage = model(token_ids.masked_fill(padding, 49), lengths, NO_GRAMS)
    assert torch.allclose(garbage, logits_of(model, ROWS), atol=1e-6)


def test_it_reads_like_a_packed_bidirectional_lstm(model: SentimentLSTM) -> None:
    reference = nn.LSTM(CONFIG.embedding_dim, CONFIG.hidden_dim, batch_first=True, bidirectional=True)
    state = model.state_dict()
    names = {name: name for name in reference.state_dict()}
    reference.load_state_dict(
        {
            name: state[
                f"backward_lstm.{name.removesuffix('_reverse')}"
                if "_reverse" in name
                else f"forward_lstm.{name}"
            ]
            for name in names
        }
    )
    expected = []
    for row in ROWS:
        words = model.embedding(torch.tensor([row]))  # (1, T, E)
        states = torch.cat([reference(words)[0], words], dim=2)[0]  # (T, 2H + E)
        expected.append(model.output(torch.cat([states.amax(0), states.mean(0)])))
    assert torch.allclose(logits_of(model, ROWS), torch.stack(expected), atol=1e-6)


def test_word_order_matters(model: SentimentLSTM) -> None:
    assert not torch.allclose(logits_of(model, [[4, 9, 2]]), logits_of(model, [[2, 9, 4]]), atol=1e-4)


def test_the_first_parameters_are_the_same_for_the_same_seed() -> None:
    first, again, other = (initial_parameters(CONFIG, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    assert set(first) == set(dict(SentimentLSTM(CONFIG).named_parameters()))
    assert not first["embedding.weight"][PAD].any()


def test_making_a_model_does_not_import_the_compiler() -> None:
    """It takes as long as torch itself, in every process of a run."""
    code = (
        "import sys; from ml.model import *;"
        "config = ModelConfig(9, subword_buckets=8, gram_buckets=8);"
        "build_model(config, initial_parameters(config, 1), words=list('123456789'));"
        "print('torch.nn' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert made.stdout.split() == ["True", "False"], made.stderr


def test_drawing_parameters_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initial_parameters(replace(CONFIG, vocabulary_size=2), seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_an_extended_vocabulary_changes_no_answer_about_old_tokens(model: SentimentLSTM) -> None:
    parameters = dict(model.named_parameters())
    config, extended = extend_vocabulary(parameters, CONFIG, 60, seed=9)
    assert config == replace(CONFIG, vocabulary_size=60)
    assert extended["embedding.weight"].shape == (60, 6)
    assert extended["embedding.weight"][50:].abs().sum(dim=1).min() > 0
    larger = build_model(config, extended).eval()
    assert torch.equal(logits_of(larger, ROWS), logits_of(model, ROWS))
    again = extend_vocabulary(parameters, CONFIG, 60, seed=9)[1]
    assert torch.equal(again["embedding.weight"], extended["embedding.weight"])


WITH_GRAMS = replace(CONFIG, gram_buckets=11)


def test_the_wide_part_adds_the_rows_of_a_text_s_runs() -> None:
    parameters = initial_parameters(WITH_GRAMS, seed=2)
    assert not parameters["grams.weight"].any(), "it starts by saying nothing"
    parameters["grams.weight"][1:] = torch.arange(30.0).reshape(10, 3)
    model = build_model(WITH_GRAMS, parameters).eval()
    token_ids, lengths = torch.tensor([[4, 9], [3, 0]]), torch.tensor([2, 1])
    with torch.no_grad():
        without = model(token_ids, lengths, torch.zeros(2, 3, dtype=torch.int64))
        both = model(token_ids, lengths, torch.tensor([[5, 12, 0], [0, 0, 0]]))
    rows = parameters["grams.weight"][[1 + 5 % 10, 1 + 12 % 10]]
    torch.testing.assert_close(both[0] - without[0], 2.0 * rows.sum(0) / 2**0.5)
    assert torch.equal(both[1], without[1])


WITH_SUBWORDS = replace(CONFIG, vocabulary_size=5, subword_buckets=97)
KNOWN = ("<pad>", "<unk>", "好吃", "好", "难吃")


def test_a_word_is_its_own_row_and_the_mean_of_its_subwords_rows() -> None:
    parameters = initial_parameters(WITH_SUBWORDS, seed=2)
    model = build_model(WITH_SUBWORDS, parameters, words=KNOWN).eval()
    with torch.no_grad():
        vectors = model.word_vectors(torch.arange(5))
    ids = torch.from_numpy(subword_ids(["好吃"], 97)[0])
    expected = parameters["embedding.weight"][2] + parameters["subwords.weight"][ids].mean(0)
    torch.testing.assert_close(vectors[2], expected)
    for reserved in (0, 1):
        assert torch.equal(vectors[reserved], parameters["embedding.weight"][reserved])


def test_words_that_share_a_character_learn_from_each_other() -> None:
    model = build_model(WITH_SUBWORDS, initial_parameters(WITH_SUBWORDS, seed=2), words=KNOWN)
    model.word_vectors(torch.tensor([2])).sum().backward()
    gradient = model.subwords.weight.grad
    assert gradient is not None
    touched = set(gradient.coalesce().indices()[0].tolist())
    ids = [set(row[row > 0].tolist()) for row in subword_ids(KNOWN[2:], 97)]
    assert touched == ids[0]
    assert touched & ids[2], "难吃 ends as 好吃 does"


def test_a_network_with_subwords_wants_to_know_its_words() -> None:
    with pytest.raises(ValueError, match="3 words for a network of 5 tokens"):
        build_model(WITH_SUBWORDS, initial_parameters(WITH_SUBWORDS, seed=2), words=KNOWN[:3])


def test_a_vocabulary_cannot_shrink(model: SentimentLSTM) -> None:
    with pytest.raises(ValueError, match="50 tokens cannot be extended to 49"):
        extend_vocabulary(dict(model.named_parameters()), CONFIG, 49, seed=0)


def test_a_configuration_survives_a_round_trip_and_unknown_keys_are_refused() -> None:
    assert ModelConfig.from_json(CONFIG.to_json()) == CONFIG
    with pytest.raises(ValueError, match="layers"):
        ModelConfig.from_json({**CONFIG.to_json(), "layers": 2})
    incomplete = CONFIG.to_json()
    del incomplete["hidden_dim"]
    with pytest.raises(ValueError, match="hidden_dim"):
        ModelConfig.from_json(incomplete)


def test_dropout_acts_in_training_mode_only(model: SentimentLSTM) -> None:
    model.train()
    answers = np.stack([logits_of(model, ROWS).numpy() for _ in range(2)])
    assert not np.allclose(answers[0], answers[1])
