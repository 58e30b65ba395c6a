"""The corpus of the experiments: reviews of ten kinds of goods, each negative or positive.

online_shopping_10_cats of ChineseNlpCorpus (github.com/SophonPlus/ChineseNlpCorpus): a zip with one CSV file of the
columns cat, label and review. It is not part of this project, and nothing but the experiments needs it.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ml.data import Example

USUAL_PLACE: Final = (
    Path(__file__).resolve().parents[2].parent / "shared" / "data" / "online_shopping_10_cats.zip"
)
_LABELS: Final = {"0": "negative", "1": "positive"}


class NoCorpus(Exception):
    """The corpus is not there or is something else; the text says where it comes from."""


@dataclass(frozen=True)
class Review:
    """One review."""

    category: str
    example: Example


@dataclass(frozen=True)
class Corpus:
    """The corpus without repetitions, cut 80 / 10 / 10 as in published comparisons."""

    train: list[Review]
    validation: list[Review]
    test: list[Review]


def by_category(reviews: Sequence[Review]) -> dict[str, list[Example]]:
    """Give the examples of each category, in their order: each becomes a site."""
    categories: dict[str, list[Example]] = {}
    for review in reviews:
        categories.setdefault(review.category, []).append(review.example)
    return dict(sorted(categories.items()))


def read_corpus(path: Path = USUAL_PLACE) -> Corpus:
    """Read the corpus and cut it: a permutation by numpy's RandomState(0), its first tenth the test set, its second the
    validation set. Raises NoCorpus.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8-sig")))
        reviews: dict[str, Review] = {}
        for row in rows:
            if row["review"] and row["review"].strip():
                example = Example(row["review"], _LABELS[row["label"]])
                reviews.setdefault(
                    row["review"], Review(row["cat"], example)
                )  # of the same text the first one
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError, IndexError) as error:
        raise NoCorpus(
            f"{path}: no corpus to read ({error!r}). Get online_shopping_10_cats.zip of ChineseNlpCorpus "
            "(github.com/SophonPlus/ChineseNlpCorpus) and name it: CORPUS=path"
        ) from error
    ordered = list(reviews.values())
    order = np.random.RandomState(0).permutation(len(ordered))
    tenth = len(ordered) // 10
    test, validation, train = np.split(order, [tenth, 2 * tenth])
    return Corpus(*([ordered[index] for index in part] for part in (train, validation, test)))
