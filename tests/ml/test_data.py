from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.data import (
    Dataset,
    Example,
    InvalidShard,
    collate,
    encode_dataset,
    epoch_batches,
    length_batches,
    pool_datasets,
    read_examples,
)
from ml.label_set import LABELS
from ml.tokenizer import Tokenizer
from ml.vocabulary import PAD, Vocabulary


def test_a_shard_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl"
    lines = [{"text": "很好\n看", "label": "positive", "source": "llm"}, {"text": "", "label": "neutral"}]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    assert read_examples(path) == [Example("很好\n看", "positive"), Example("", "neutral")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a", "label": ', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"label": "neutral"}', '"text" must be a string, got None'),
        (b'{"text": 5, "label": "neutral"}', '"text" must be a string, got 5'),
        (b'{"text": "a", "label": "meh"}', "must be one of negative, neutral, positive, got 'meh'"),
        (b'{"text": "a", "label": ["neutral"]}', "must be one of"),
        (b"", "not JSON"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "shard.jsonl"
    path.write_bytes(b'{"text": "a", "label": "neutral"}\n' + line + b"\n")
    with pytest.raises(InvalidShard) as caught:
        read_examples(path)
    assert "shard.jsonl line 2: " in str(caught.value)
    assert reason in str(caught.value)


def test_encoding_keeps_order_lengths_and_labels(
    some_examples: list[Example], tokenizer: Tokenizer, vocabulary: Vocabulary, dataset: Dataset
) -> None:
    assert len(dataset) == len(some_examples)
    for index in (0, 7, len(dataset) - 1):
        expected = vocabulary.encode(tokenizer.tokenize(some_examples[index].text), 32)
        found = dataset.token_ids[dataset.offsets[index] : dataset.offsets[index + 1]].tolist()
        assert found == expected
        assert LABELS[dataset.labels[index]] == some_examples[index].label
    assert dataset.lengths.min() >= 1


def test_pooled_datasets_are_the_dataset_of_all_examples(
    some_examples: list[Example], tokenizer: Tokenizer, vocabulary: Vocabulary, dataset: Dataset
) -> None:
    parts = [some_examples[:10], [], some_examples[10:]]
    pooled = pool_datasets([encode_dataset(part, tokenizer, vocabulary, 32) for part in parts])
    assert np.array_equal(pooled.token_ids, dataset.token_ids)
    assert np.array_equal(pooled.offsets, dataset.offsets)
    assert np.array_equal(pooled.labels, dataset.labels)
    assert len(pool_datasets([])) == 0


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32))
def test_every_sample_comes_once_in_each_epoch_and_no_batch_repeats_one(n: int, size: int, seed: int) -> None:
    batches = list(itertools.islice(epoch_batches(n, size, seed), 12))
    assert {len(batch) for batch in batches} == {min(n, size)}
    assert all(len(set(batch.tolist())) == len(batch) for batch in batches)
    seen = np.concatenate(batches)
    for start in range(0, len(seen) - n + 1, n):
        assert sorted(seen[start : start + n].tolist()) == list(range(n))


def test_batches_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    def first(seed: int) -> list[list[int]]:
        return [batch.tolist() for batch in itertools.islice(epoch_batches(50, 8, seed), 10)]

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_no_sample_is_favoured_over_many_epochs() -> None:
    seen: Counter[int] = Counter()
    for batch in itertools.islice(epoch_batches(7, 3, 0), 700):
        seen.update(batch.tolist())
    assert set(seen.values()) == {300}


@pytest.mark.parametrize(("n", "size"), [(0, 4), (4, 0)])
def test_batches_of_nothing_are_refused_at_once(n: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        epoch_batches(n, size, 0)


def test_a_batch_is_padded_to_its_longest_sample(dataset: Dataset) -> None:
    rows = [3, 0, 9]
    batch = collate(dataset, rows)
    assert batch.token_ids.dtype == batch.lengths.dtype == batch.labels.dtype == np.int64
    assert batch.token_ids.shape == (3, dataset.lengths[rows].max())
    for place, row in enumerate(rows):
        length = dataset.lengths[row]
        sample = dataset.token_ids[dataset.offsets[row] : dataset.offsets[row + 1]]
        assert np.array_equal(batch.token_ids[place, :length], sample)
        assert (batch.token_ids[place, length:] == PAD).all()


def take(lengths: np.ndarray, size: int, count: int, **seeds: int) -> list[np.ndarray]:
    made = length_batches(lengths, size, **{"seed": 1, "order_seed": 2, **seeds})
    return list(itertools.islice(made, count))


@given(n=st.integers(1, 400), size=st.integers(1, 120), seed=st.integers(0, 5))
def test_batches_by_length_hold_what_plain_ones_hold(n: int, size: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, n)
    period = max(1, min(8, n // size))
    by_length = take(lengths, size, 2 * period, seed=seed)
    plain = list(itertools.islice(epoch_batches(n, size, seed), 2 * period))
    assert {len(batch) for batch in by_length} == {min(n, size)}
    for start in (0, period):
        ours, theirs = (
            np.sort(np.concatenate(batches[start : start + period])) for batches in (by_length, plain)
        )
        assert np.array_equal(ours, theirs)


def padded(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Positions that go through the network for each real one, slice by slice."""
    slices = [
        part
        for batch in batches
        for part in np.array_split(np.sort(lengths[batch])[::-1], max(1, round(len(batch) / 32)))
    ]
    return sum(len(part) * part.max() for part in slices) / sum(part.sum() for part in slices)


@pytest.mark.parametrize("size", [24, 64])
def test_batches_by_length_are_mostly_text_and_not_padding(size: int) -> None:
    lengths = np.random.default_rng(0).geometric(1 / 40, 4_000).clip(1, 128)
    plain = list(itertools.islice(epoch_batches(4_000, size, 1), 64))
    assert padded(lengths, take(lengths, size, 64)) < 1.35 < padded(lengths, plain)


def test_sites_that_share_the_order_have_long_batches_in_the_same_rounds() -> None:
    lengths = [np.random.default_rng(seed).geometric(1 / 40, 3_000).clip(1, 128) for seed in range(2)]
    longest = [
        [int(mine[batch].max()) for batch in take(mine, 24, 80, seed=seed)]
        for seed, mine in enumerate(lengths)
    ]
    assert np.corrcoef(*longest)[0, 1] > 0.9
    other = [int(lengths[1][batch].max()) for batch in take(lengths[1], 24, 80, order_seed=9)]
    assert np.corrcoef(longest[0], other)[0, 1] < 0.5
