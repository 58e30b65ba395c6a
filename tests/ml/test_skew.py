"""Training and serving read a text alike: the same 10,000 texts go both ways, through an artifact on the disk."""

from __future__ import annotations

import csv
import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ml.artifact import load_artifact
from ml.bootstrap import BootstrapCorpus
from ml.data import Example, collate, encode_dataset
from ml.export import export_artifact
from ml.model import ModelConfig, initial_parameters
from ml.predict import Predictor
from ml.tokenizer import Kind, TokenizerSettings, make_tokenizer
from ml.vocabulary import build_vocabulary, count_tokens
from tests.ml.conftest import ROOT

TEXTS = 10_000
MAX_LENGTH = 48
REVIEWS = ROOT.parent / "shared" / "data" / "online_shopping_10_cats.zip"
RANGES = (  # of code points
    (0x00, 0x20),  # controls and whitespace
    (0x20, 0x7F),
    (0x80, 0x250),
    (0x300, 0x370),  # combining marks
    (0x2000, 0x2070),  # invisible ones among them
    (0x3000, 0x3040),
    (0x4E00, 0x9FA6),
    (0xAC00, 0xAD00),
    (0xD800, 0xE000),  # lone surrogates
    (0xFE00, 0xFE10),
    (0xFF00, 0xFFF0),  # full width
    (0x1F300, 0x1F700),  # emoji
    (0x20000, 0x20100),
    (0xE0000, 0xE0080),
)


@pytest.fixture(scope="module")
def texts(corpus: BootstrapCorpus) -> list[str]:
    """Real reviews, pieces of them mixed with everything else that people can type, and what is odd."""
    dice = random.Random(7)
    reviews = [example.text for example in corpus.examples[::4]] + shop_reviews()
    mixed = ["", " ", "<pad>", "<unk> <pad>", "好" * 3000, "a" * 3000, "\ufeff", *map(chr, range(0x100))]
    while len(mixed) < TEXTS // 2:
        parts = [
            odd_run(dice) if dice.random() < 0.6 else piece(dice, reviews) for _ in range(dice.randint(1, 6))
        ]
        mixed.append("".join(parts))
    dice.shuffle(reviews)
    chosen = reviews[: TEXTS - len(mixed)] + mixed
    dice.shuffle(chosen)
    assert len(chosen) >= TEXTS * 0.9
    return [*chosen, *mixed][:TEXTS]


def odd_run(dice: random.Random) -> str:
    low, high = dice.choice(RANGES)
    return "".join(chr(dice.randrange(low, high)) for _ in range(dice.randint(1, 8)))


def piece(dice: random.Random, reviews: list[str]) -> str:
    review = dice.choice(reviews)
    start = dice.randrange(len(review))
    return review[start : start + dice.randint(1, 30)]


def shop_reviews() -> list[str]:
    """Reviews of a public corpus, where this checkout has it beside it."""
    if not REVIEWS.exists():
        return []
    with zipfile.ZipFile(REVIEWS) as archive, archive.open("online_shopping_10_cats.csv") as content:
        rows = csv.DictReader(io.TextIOWrapper(content, encoding="utf-8-sig"))
        return [row["review"] for row in list(rows)[::20] if row["review"]]


@pytest.mark.parametrize("kind", ["jieba", "characters"])
def test_training_and_serving_read_ten_thousand_texts_alike(
    texts: list[str], kind: Kind, tmp_path: Path
) -> None:
    settings = TokenizerSettings(kind)
    tokenizer = make_tokenizer(settings)
    vocabulary = build_vocabulary(count_tokens(texts[::3], tokenizer), max_size=8000, min_count=2)
    config = ModelConfig(len(vocabulary), embedding_dim=4, hidden_dim=4, gram_buckets=64)
    written = export_artifact(
        tmp_path,
        weights={name: value.numpy() for name, value in initial_parameters(config, seed=1).items()},
        config=config,
        tokenizer=settings,
        vocabulary=vocabulary,
        max_length=MAX_LENGTH,
    )
    served = Predictor(load_artifact(written.path, written.digest)).encode(texts)
    trained = encode_dataset([Example(text, "neutral") for text in texts], tokenizer, vocabulary, MAX_LENGTH)

    assert len(served) == len(trained) == TEXTS
    for text, found, token_ids, grams in zip(
        texts, served, trained.token_rows(), trained.gram_rows(), strict=True
    ):
        assert np.array_equal(found.token_ids, token_ids), repr(text)
        assert np.array_equal(found.grams, grams), repr(text)
    batch = collate(trained, range(64))
    assert batch.lengths.tolist() == served.lengths[:64].tolist()
