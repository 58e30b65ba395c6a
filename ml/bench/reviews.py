"""What the benchmark asks about: reviews of the bootstrap corpus, as texts and as requests ready to be sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from ml.bootstrap import read_bootstrap_corpus
from ml.text import split_of

BATCH_TEXTS: Final = 64
SHORT_CHARACTERS: Final = 30  # a comment, rather than a review
_SEED: Final = 4


def choose_reviews(count: int) -> list[str]:
    """Draw reviews that no training saw, of all lengths, the same for everyone."""
    unseen = [
        example.text for example in read_bootstrap_corpus().examples if split_of(example.text) != "train"
    ]
    return [unseen[row] for row in np.random.default_rng(_SEED).permutation(len(unseen))[:count]]


def take_short(reviews: Sequence[str]) -> list[str]:
    """Give those that are as short as a comment."""
    return [review for review in reviews if len(review) <= SHORT_CHARACTERS]


def make_batches(reviews: Sequence[str]) -> list[list[str]]:
    """Give the reviews BATCH_TEXTS at a time, without what is left over."""
    whole = len(reviews) - len(reviews) % BATCH_TEXTS
    return [list(reviews[start : start + BATCH_TEXTS]) for start in range(0, whole, BATCH_TEXTS)]


def write_request(texts: Sequence[str]) -> bytes:
    """Give the bytes of a request for predictions, as HTTP clients send it."""
    body = json.dumps({"texts": list(texts)}, ensure_ascii=False).encode()
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
