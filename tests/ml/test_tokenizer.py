from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.bootstrap import BootstrapCorpus
from ml.text import normalize_text
from ml.tokenizer import (
    LINE_END,
    JiebaTokenizer,
    Kind,
    Tokenizer,
    TokenizerSettings,
    cut_with_jieba,
    cut_with_rjieba,
    make_tokenizer,
)


def test_both_implementations_cut_the_whole_bootstrap_corpus_alike(corpus: BootstrapCorpus) -> None:
    texts = [normalize_text(example.text) for example in corpus.examples]
    assert len(texts) > 17_000
    differing = [text for text in texts if cut_with_rjieba(text, False) != cut_with_jieba(text, False)]
    assert differing == []


def test_without_the_fast_implementation_the_other_one_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "rjieba" else real(name, package)

    text = "物流很快，包装 也不错👍"
    fast = make_tokenizer(TokenizerSettings())
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    slow = make_tokenizer(TokenizerSettings())
    assert fast != slow
    assert slow.tokenize(text) == fast.tokenize(text)


@given(st.text(st.characters()))
def test_tokens_hold_everything_but_whitespace(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.tokenize(text)
    assert "".join(tokens) == normalize_text(text).replace(" ", "")
    assert all(token.strip() for token in tokens)


def test_words_numbers_and_emoji_are_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokenize("我不喜欢  这本书😀 \n OK") == ["我", "不", "喜欢", "这", "本书", "😀", "ok"]


def test_loading_the_dictionary_prints_nothing() -> None:
    code = "from ml.tokenizer import cut_with_jieba; cut_with_jieba('很好', False)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_characters_are_tokens_where_the_settings_say_so() -> None:
    tokenizer = make_tokenizer(TokenizerSettings("characters"))
    assert tokenizer.tokenize("ＯＫ\u200b 很 好\n😀！") == ["o", "k", "很", "好", "😀", "!"]
    assert tokenizer.tokenize(" \u200b\n") == []


@given(text=st.text(st.characters()), kind=st.sampled_from(["jieba", "characters"]))
def test_a_normalized_text_is_cut_like_the_text_itself(text: str, kind: Kind) -> None:
    tokenizer = make_tokenizer(TokenizerSettings(kind))
    assert tokenizer.cut_normalized(normalize_text(text)) == tokenizer.tokenize(text)
    assert "".join(tokenizer.tokenize(text)) == normalize_text(text).replace(" ", "")


@pytest.mark.parametrize("settings", [TokenizerSettings(hmm=True), TokenizerSettings("characters")])
def test_settings_survive_a_round_trip_and_unknown_ones_are_refused(settings: TokenizerSettings) -> None:
    assert TokenizerSettings.from_json(settings.to_json()) == settings
    with pytest.raises(ValueError, match="'thulac'"):
        TokenizerSettings.from_json({"kind": "thulac", "hmm": False})
    with pytest.raises(ValueError, match="hmm"):
        TokenizerSettings.from_json({"kind": "jieba", "hmm": 1})
    with pytest.raises(ValueError, match="characters are not guessed at"):
        TokenizerSettings.from_json({"kind": "characters", "hmm": True})


@given(texts=st.lists(st.text(st.characters()), max_size=6), kind=st.sampled_from(["jieba", "characters"]))
def test_several_texts_are_cut_like_each_of_them(texts: list[str], kind: Kind) -> None:
    tokenizer = make_tokenizer(TokenizerSettings(kind))
    normalized = [normalize_text(text) for text in texts]
    wanted = [token for text in normalized for token in [*tokenizer.cut_normalized(text), LINE_END]][:-1]
    assert [token for token in tokenizer.cut_lines(normalized) if token != " "] == wanted


def test_both_implementations_cut_lines_alike(corpus: BootstrapCorpus) -> None:
    lines = [normalize_text(example.text) for example in corpus.examples[::50]]
    assert JiebaTokenizer(cut_with_rjieba, False).cut_lines(lines) == JiebaTokenizer(
        cut_with_jieba, False
    ).cut_lines(lines)
