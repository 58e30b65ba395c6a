"""Examples, shards on disk, encoded datasets and the order in which batches visit them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.grams import hash_grams
from ml.label_set import LABELS
from ml.tokenizer import Tokenizer
from ml.vocabulary import Vocabulary

Int64Array = npt.NDArray[np.int64]

LENGTH_PERIOD: Final = 8
SLICE_SAMPLES: Final = 32


class InvalidShard(ValueError):
    """A shard file holds a line that is not an example; names the file, the line and what is wrong."""


@dataclass(frozen=True)
class Example:
    """A text and the label it is accepted to have."""

    text: str
    label: str


@dataclass(frozen=True)
class Dataset:
    """Encoded examples of different lengths, laid end to end."""

    token_ids: npt.NDArray[np.int32]  # (total tokens,)
    offsets: Int64Array  # (samples + 1,): sample i is token_ids[offsets[i]:offsets[i + 1]]
    labels: Int64Array  # (samples,): class indices
    grams: npt.NDArray[np.int32]  # (total runs of characters,), see ml/grams.py
    gram_offsets: Int64Array  # (samples + 1,)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each sample, (samples,), each at least 1."""
        return np.diff(self.offsets)

    def token_rows(self, rows: Int64Array | None = None) -> list[npt.NDArray[np.int32]]:
        """Give the token ids of some samples, or of all."""
        return _rows_of(self.token_ids, self.offsets, rows)

    def gram_rows(self, rows: Int64Array | None = None) -> list[npt.NDArray[np.int32]]:
        """Give the runs of characters of some samples, or of all."""
        return _rows_of(self.grams, self.gram_offsets, rows)


def _rows_of(
    flat: npt.NDArray[np.int32], offsets: Int64Array, rows: Int64Array | None
) -> list[npt.NDArray[np.int32]]:
    chosen = range(len(offsets) - 1) if rows is None else rows
    return [flat[offsets[row] : offsets[row + 1]] for row in chosen]


@dataclass(frozen=True)
class Batch:
    """Samples padded to the longest among them."""

    token_ids: Int64Array  # (B, T)
    lengths: Int64Array  # (B,)
    labels: Int64Array  # (B,)
    grams: Int64Array  # (B, G), padded with NO_GRAM

    def __len__(self) -> int:
        return len(self.labels)


def read_examples(path: Path) -> list[Example]:
    """Read a shard: one JSON object {"text", "label"} a line; further keys are ignored.

    Raises InvalidShard naming the line when one is not that, and OSError when the file cannot be read.
    """
    with path.open("rb") as lines:
        return [_parse_line(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse_line(path: Path, number: int, line: bytes) -> Example:
    where = f"{path.name} line {number}"
    try:
        document = json.loads(line)
    except ValueError as error:
        raise InvalidShard(f"{where}: not JSON in UTF-8 ({error}); cut the shard again") from error
    if not isinstance(document, dict):
        raise InvalidShard(f"{where}: expected a JSON object, got {type(document).__name__}")
    text, label = document.get("text"), document.get("label")
    if not isinstance(text, str):
        raise InvalidShard(f'{where}: "text" must be a string, got {text!r:.60}')
    if label not in LABELS:
        raise InvalidShard(f'{where}: "label" must be one of {", ".join(LABELS)}, got {label!r:.60}')
    return Example(text, label)


def encode_dataset(
    examples: Sequence[Example], tokenizer: Tokenizer, vocabulary: Vocabulary, max_length: int
) -> Dataset:
    """Encode examples for training or evaluation, in their order."""
    encoded = [
        np.array(vocabulary.encode(tokenizer.tokenize(example.text), max_length), np.int32)
        for example in examples
    ]
    grams = [hash_grams(example.text).astype(np.int32) for example in examples]
    labels = np.array([LABELS.index(example.label) for example in examples], dtype=np.int64)
    return Dataset(*_lay_end_to_end(encoded), labels, *_lay_end_to_end(grams))


def _lay_end_to_end(rows: Sequence[npt.NDArray[np.int32]]) -> tuple[npt.NDArray[np.int32], Int64Array]:
    """Give the rows as one array, and where each begins."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.concatenate([np.zeros(0, np.int32), *rows]), offsets


def pool_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Lay several datasets end to end, in the given order."""
    return Dataset(
        *_lay_end_to_end([row for dataset in datasets for row in dataset.token_rows()]),
        np.concatenate([np.zeros(0, np.int64), *(dataset.labels for dataset in datasets)]),
        *_lay_end_to_end([row for dataset in datasets for row in dataset.gram_rows()]),
    )


def epoch_batches(n: int, batch_size: int, seed: int) -> Iterator[Int64Array]:
    """Give indices of batch after batch, for ever: every sample once before any sample again.

    A batch that reaches the end of one shuffled epoch is filled from the next, so that all have the same
    size; a set smaller than the batch is given whole each time. Deterministic in (n, batch_size, seed).
    Raises ValueError when n or batch_size is below 1.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"batches need at least 1 sample and size 1, got {n} samples and size {batch_size}")
    return _endless_batches(n, min(n, batch_size), np.random.default_rng(seed))


def _endless_batches(n: int, size: int, generator: np.random.Generator) -> Iterator[Int64Array]:
    waiting = generator.permutation(n)
    while True:
        if len(waiting) < size:
            # The rest of this batch comes from the next epoch, and must not repeat what it holds already.
            following = generator.permutation(n)
            fresh = following[~np.isin(following, waiting)][: size - len(waiting)]
            later = following[~np.isin(following, fresh)]
            waiting = np.concatenate([waiting, fresh, later])
        yield waiting[:size]
        waiting = waiting[size:]


def length_batches(
    lengths: Int64Array, batch_size: int, *, seed: int, order_seed: int
) -> Iterator[Int64Array]:
    """Give indices of batch after batch, for ever, each of texts of a few similar lengths: little of it is padding.

    What `epoch_batches` gives is dealt anew, LENGTH_PERIOD batches at a time. A batch of few samples is of one
    length, one of many gets long ones with its short ones. Which lengths a batch gets depends on its number and
    `order_seed` alone: sites that share it compute about equally long in each round, so that none waits.
    """
    batches = epoch_batches(len(lengths), batch_size, seed)
    period = max(1, min(LENGTH_PERIOD, len(lengths) // batch_size))
    for number in itertools.count():
        dealt = _deal_by_length(np.concatenate(list(itertools.islice(batches, period))), lengths, period)
        for index in np.random.default_rng([order_seed, number]).permutation(period):
            yield dealt[index]


def _deal_by_length(rows: Int64Array, lengths: Int64Array, batches: int) -> list[Int64Array]:
    """Deal rows into batches of the same size: of each slice of similar lengths one to a batch."""
    longest_first = rows[np.argsort(-lengths[rows], kind="stable")]
    size = len(rows) // batches
    dealt: list[list[Int64Array]] = [[] for _ in range(batches)]
    start = 0
    for slot, part in enumerate(np.array_split(np.arange(size), slice_count(size))):
        hands = longest_first[start : start + batches * len(part)].reshape(batches, len(part))
        start += hands.size
        # There and back again: who got the longest of one slot gets the shortest of the next.
        for batch, hand in zip(dealt, hands if slot % 2 == 0 else hands[::-1], strict=True):
            batch.append(hand)
    return [np.concatenate(batch) for batch in dealt]


def slice_count(samples: int) -> int:
    """Into how many slices of similar lengths a batch is cut, which go through the network one after another."""
    return max(1, round(samples / SLICE_SAMPLES))


def collate(dataset: Dataset, indices: Sequence[int] | Int64Array) -> Batch:
    """Make a padded batch of the samples at `indices`, in that order."""
    rows = np.asarray(indices, dtype=np.int64)
    token_ids, grams = pad_rows(dataset.token_rows(rows)), pad_rows(dataset.gram_rows(rows))
    return Batch(token_ids, dataset.lengths[rows], dataset.labels[rows], grams)


def pad_rows(rows: Sequence[Sequence[int] | npt.NDArray[np.integer]]) -> Int64Array:
    """Lay rows of different lengths under each other, padded with 0 on the right: (rows, longest)."""
    if len(rows) == 1:
        return np.array(rows, dtype=np.int64)
    padded = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return padded
