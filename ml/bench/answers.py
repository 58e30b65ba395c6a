"""Whether what the server answers is what its model says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.bench.traffic import Answer
from ml.label_set import LABELS

# Of probabilities. An int8 network scales what it computes by the largest value of a batch, so that a text's
# neighbours move its answer a little; other texts and other models move it far more.
TOLERANCE: Final = 0.02

Expected = Mapping[str, npt.NDArray[np.float32]]  # digest → what that model says of each text (texts, labels)


def count_wrong(answers: Iterable[Answer], expected: Expected, texts_a_request: int) -> int:
    """Count the answers that are not those of the model they name."""
    return sum(not is_right(answer, expected, texts_a_request) for answer in answers)


def is_right(answer: Answer, expected: Expected, texts_a_request: int = 1) -> bool:
    """Say whether header and body name the same known model, and all predictions are that model's.

    The texts of request n are those from n * texts_a_request on.
    """
    document = json.loads(answer.body)
    model = str(document["model"])
    if model not in expected or read_digest(answer.head) != model:
        return False
    start = answer.number * texts_a_request
    rows = expected[model][start : start + texts_a_request]
    predictions: Sequence[Mapping[str, object]] = document["predictions"]
    return len(predictions) == len(rows) and all(map(_agrees, predictions, rows))


def _agrees(prediction: Mapping[str, object], row: npt.NDArray[np.float32]) -> bool:
    probabilities = prediction["probabilities"]
    assert isinstance(probabilities, dict)
    found = np.array([probabilities[label] for label in LABELS])
    if not np.abs(found - row).max() <= TOLERANCE:
        return False
    # Where two labels are as good as each other, either will do.
    label = str(prediction["label"])
    return bool(row[LABELS.index(label)] >= row.max() - 2 * TOLERANCE)


def read_digest(head: bytes) -> str:
    """Find X-Model-Digest in an answer's head; empty when it is not there."""
    at = head.lower().find(b"\r\nx-model-digest:")
    return head[at + 17 :].split(b"\r\n", 1)[0].strip().decode("ascii") if at >= 0 else ""
