"""How good predictions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml.label_set import LABELS

MIN_CLASS_SUPPORT: Final = 200  # where two predictions move macro F1 by a third of a percent
FEW: Final = 20  # enough for a class to count where not even two classes have more


@dataclass(frozen=True)
class ClassQuality:
    """How one class fares; a ratio without a denominator is 0."""

    precision: float
    recall: float
    f1: float
    support: int  # samples whose true label this is


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on a set of samples.

    `macro_f1` is the mean F1 of the classes with at least MIN_CLASS_SUPPORT samples: a class of fewer would move
    the figure by chance, further than a better or worse model does. Where there are not two such classes, it is the
    mean over those with at least FEW, and where there are none, over those with any.
    """

    samples: int
    loss: float  # mean cross-entropy in nats
    accuracy: float
    macro_f1: float
    per_class: dict[str, ClassQuality]
    confusion: list[list[int]]  # rows: true class, columns: predicted class

    def to_json(self) -> dict[str, Any]:
        """Give the evaluation as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Evaluation:
        """Read an evaluation back; raises KeyError or TypeError when the document is not one."""
        return cls(
            samples=int(document["samples"]),
            loss=float(document["loss"]),
            accuracy=float(document["accuracy"]),
            macro_f1=float(document["macro_f1"]),
            per_class={label: ClassQuality(**quality) for label, quality in document["per_class"].items()},
            confusion=[[int(count) for count in row] for row in document["confusion"]],
        )


def evaluate_predictions(
    truth: Sequence[int] | npt.NDArray[np.int64],
    predicted: Sequence[int] | npt.NDArray[np.int64],
    *,
    loss: float = 0.0,
) -> Evaluation:
    """Compare true with predicted class indices, (samples,) each; raises ValueError for different lengths."""
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true labels cannot be compared with {len(predicted)} predictions")
    confusion = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
    np.add.at(confusion, (np.asarray(truth, np.int64), np.asarray(predicted, np.int64)), 1)
    return evaluate_confusion(confusion, loss=loss)


def evaluate_confusion(confusion: npt.NDArray[np.int64], *, loss: float = 0.0) -> Evaluation:
    """Evaluate a confusion matrix (classes, classes), rows truth; sites' matrices add up to the whole."""
    per_class = {label: _class_quality(confusion, index) for index, label in enumerate(LABELS)}
    samples = int(confusion.sum())
    return Evaluation(
        samples=samples,
        loss=loss,
        accuracy=_ratio(int(confusion.trace()), samples),
        macro_f1=_macro_f1(list(per_class.values())),
        per_class=per_class,
        confusion=confusion.tolist(),
    )


def _class_quality(confusion: npt.NDArray[np.int64], index: int) -> ClassQuality:
    hits = int(confusion[index, index])
    support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return ClassQuality(
        _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted), support
    )


def _macro_f1(qualities: Sequence[ClassQuality]) -> float:
    counted: list[float] = []
    for support, classes in ((MIN_CLASS_SUPPORT, 2), (FEW, 1), (1, 0)):
        counted = [quality.f1 for quality in qualities if quality.support >= support]
        if len(counted) >= classes:
            break
    return _ratio(sum(counted), len(counted))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
