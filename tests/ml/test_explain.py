from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml.artifact import load_artifact
from ml.explain import MAX_SPANS, occlude
from ml.grams import hash_grams
from ml.predict import Predictor
from ml.prediction import Prediction
from ml.text import normalize_text
from ml.tokenizer import CharacterTokenizer, Tokenizer, TokenizerSettings, make_tokenizer
from tests.ml.conftest import TinyModel
from tests.ml.test_alignment import TEXTS

TOKENIZER = make_tokenizer(TokenizerSettings())


@pytest.fixture(scope="module")
def predictor(tiny: TinyModel) -> Predictor:
    return Predictor(load_artifact(tiny.artifact.path, tiny.artifact.digest))


def parts(text: str, tokenizer: Tokenizer = TOKENIZER, max_spans: int = MAX_SPANS) -> list[str]:
    return [text[start:end] for start, end in occlude(text, tokenizer, max_spans).spans]


def test_the_parts_are_the_tokens_as_they_were_written() -> None:
    text = "这家店　的ＡＢＣ味道\u200b真好，½价！❤️"
    assert parts(text) == ["这家", "店", "的", "ＡＢＣ", "味道\u200b", "真", "好", "，", "½", "价", "！", "❤️"]


def test_a_model_that_reads_characters_is_explained_by_characters() -> None:
    assert parts("真\u200b好 e\u0301", CharacterTokenizer()) == ["真\u200b", "好", "e\u0301"]


@pytest.mark.parametrize("text", ["", " \u3000\n", "\u200b\ufe0f", "\ud800"])
def test_a_text_that_says_nothing_has_no_parts(text: str) -> None:
    assert parts(text) == []
    assert occlude(text, TOKENIZER).variants() == []


@given(TEXTS, st.integers(1, 8))
@example("½½½", 1)
def test_parts_stand_in_order_apart_and_leave_nothing_out(text: str, max_spans: int) -> None:
    spans = occlude(text, TOKENIZER, max_spans).spans
    assert len(spans) <= max_spans
    place, rest = 0, []
    for start, end in spans:
        assert place <= start < end <= len(text)
        rest.append(text[place:start])
        place = end
    assert normalize_text("".join([*rest, text[place:]])) == ""


@given(TEXTS)
def test_a_variant_is_the_text_without_that_part_and_nothing_else(text: str) -> None:
    occlusion = occlude(text, TOKENIZER)
    for (start, end), variant in zip(occlusion.spans, occlusion.variants(), strict=True):
        assert len(variant) == len(text) - (end - start)
        assert text == variant[:start] + text[start:end] + variant[start:]


def test_a_long_text_is_cut_into_windows_of_neighbours_of_one_size() -> None:
    text = "这家店的味道真好。" * 300
    found = parts(text)
    assert 32 < len(found) <= 64
    assert "".join(found) == text
    tokens = [len(TOKENIZER.tokenize(part)) for part in found[:-1]]
    assert max(tokens) - min(tokens) <= 2  # a window cut out of the text may be cut into words otherwise


def test_the_weight_is_what_the_labels_log_odds_lose_without_the_part(predictor: Predictor) -> None:
    text = "这本书很好看，物流太慢了"
    occlusion = occlude(text, TOKENIZER)
    whole = predictor.predict([text])[0]
    weights = occlusion.weigh(whole, predictor.predict(occlusion.variants()))
    assert [text[part.start : part.end] for part in weights] == [part.text for part in weights]
    for part in weights:
        without = predictor.predict([text[: part.start] + text[part.end :]])[0].probabilities[whole.label]
        expected = math.log(whole.score / (1 - whole.score)) - math.log(without / (1 - without))
        assert part.weight == pytest.approx(expected, abs=1e-3)


def test_leaving_a_word_out_changes_words_and_runs_of_characters_alike(predictor: Predictor) -> None:
    """Both halves of the network see the variant as if its writer had never written the word."""
    occlusion = occlude("很好看", TOKENIZER)
    for variant in occlusion.variants():
        (encoded,) = predictor._encoder.encode([variant])
        assert encoded.grams.tolist() == hash_grams(variant).tolist()
        assert "很好看" not in variant


def prediction(label: str, score: float) -> Prediction:
    other = "negative" if label == "positive" else "positive"
    return Prediction(
        max((label, other), key={label: score, other: 1 - score}.__getitem__),
        score,
        {label: score, other: 1 - score},
    )


def test_a_word_speaks_for_the_label_or_against_it_and_certainty_is_not_without_end() -> None:
    occlusion = occlude("好 差 书", TOKENIZER)
    whole = prediction("positive", 0.8)
    found = occlusion.weigh(
        whole, [prediction("positive", 0.0), prediction("positive", 1.0), prediction("positive", 0.8)]
    )
    assert found[0].weight > 10
    assert found[1].weight < -10
    assert found[2].weight == 0
    assert all(math.isfinite(part.weight) for part in found)


def test_a_tokenizer_whose_tokens_are_not_in_the_text_is_named() -> None:
    class Liar(CharacterTokenizer):
        def cut_normalized(self, normalized: str) -> list[str]:
            return ["坏"]

    with pytest.raises(ValueError, match="'坏' of a text that does not hold it"):
        occlude("好", Liar())
