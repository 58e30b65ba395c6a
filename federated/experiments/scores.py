"""The figures that experiments report of a model on a set of reviews."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ml.data import Dataset
from ml.metrics import Evaluation, evaluate_confusion
from ml.model import SentimentLSTM
from ml.train import evaluate


def score(evaluation: Evaluation) -> dict[str, Any]:
    """Give macro-F1 over the classes that the set holds, accuracy and the number of samples."""
    present = [quality.f1 for quality in evaluation.per_class.values() if quality.support]
    return {
        "macro_f1": sum(present) / max(1, len(present)),
        "accuracy": evaluation.accuracy,
        "samples": evaluation.samples,
    }


def score_by_category(model: SentimentLSTM, sets: Mapping[str, Dataset]) -> dict[str, Any]:
    """Score a model on all sets together and, under "by_category", on each of them."""
    evaluations = {category: evaluate(model, dataset) for category, dataset in sets.items() if len(dataset)}
    confusion = sum(np.array(evaluation.confusion) for evaluation in evaluations.values())
    return {
        **score(evaluate_confusion(np.asarray(confusion))),
        "by_category": {category: score(evaluation) for category, evaluation in evaluations.items()},
    }
