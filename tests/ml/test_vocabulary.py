from __future__ import annotations

from collections import Counter

import pytest

from ml.data import Example
from ml.tokenizer import Tokenizer
from ml.vocabulary import PAD, RESERVED, UNK, Vocabulary, build_vocabulary, count_tokens


def test_tokens_are_ordered_by_count_and_then_by_themselves() -> None:
    built = build_vocabulary({"b": 5, "a": 5, "c": 9, "rare": 1}, max_size=10, min_count=2)
    assert built.tokens == ("<pad>", "<unk>", "c", "a", "b")
    again = build_vocabulary({"rare": 1, "c": 9, "a": 5, "b": 5}, max_size=10, min_count=2)
    assert again == built


def test_the_largest_size_counts_the_reserved_tokens() -> None:
    assert build_vocabulary({"a": 3, "b": 2}, max_size=3, min_count=1).tokens == ("<pad>", "<unk>", "a")


def test_a_base_keeps_its_ids_and_new_tokens_follow() -> None:
    base = build_vocabulary({"a": 1, "b": 2}, max_size=10, min_count=1)
    extended = build_vocabulary({"new": 9, "a": 50, "newer": 3}, max_size=5, min_count=1, base=base)
    assert extended.tokens == (*base.tokens, "new")
    unchanged = build_vocabulary({"new": 9}, max_size=2, min_count=1, base=base)
    assert unchanged == base


def test_the_counts_of_sites_add_up_to_those_of_their_union(
    some_examples: list[Example], tokenizer: Tokenizer
) -> None:
    texts = [example.text for example in some_examples]
    parts = [count_tokens(texts[site::3], tokenizer) for site in range(3)]
    assert sum(parts, Counter()) == count_tokens(texts, tokenizer)


def test_unknown_tokens_and_empty_texts_are_unk() -> None:
    vocabulary = Vocabulary(["<pad>", "<unk>", "好"])
    assert vocabulary.encode(["好", "坏"], 8) == [2, UNK]
    assert vocabulary.encode([], 8) == [UNK]
    assert PAD not in vocabulary.encode(["好", "<nothing>"], 8)


@pytest.mark.parametrize("max_length", [1, 2, 3, 4])
def test_of_a_long_text_beginning_and_end_are_kept(max_length: int) -> None:
    tokens = list("abcdefgh")
    vocabulary = Vocabulary(["<pad>", "<unk>", *tokens])
    kept = [vocabulary.tokens[index] for index in vocabulary.encode(tokens, max_length)]
    assert kept == {1: ["a"], 2: ["a", "h"], 3: ["a", "b", "h"], 4: ["a", "b", "g", "h"]}[max_length]


def test_a_vocabulary_survives_a_round_trip(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert len(vocabulary) == 500


@pytest.mark.parametrize(
    "document",
    [{}, {"tokens": ["a"]}, {"tokens": ["<pad>", "<unk>", 3]}, {"tokens": ["<pad>", "<unk>", "a", "a"]}],
)
def test_a_document_that_is_no_vocabulary_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary.from_json(document)


def test_no_text_becomes_padding() -> None:
    vocabulary = Vocabulary([*RESERVED, "好"])
    assert vocabulary.encode(["<pad>", "好", "<unk>"], 8) == [UNK, 2, UNK]
