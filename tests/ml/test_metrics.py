from __future__ import annotations

import json

import numpy as np
import pytest

from ml.metrics import (
    FEW,
    MIN_CLASS_SUPPORT,
    ClassQuality,
    Evaluation,
    evaluate_confusion,
    evaluate_predictions,
)


def test_figures_are_those_computed_by_hand() -> None:
    confusion = np.array([[40, 0, 10], [0, 20, 10], [10, 10, 30]])
    found = evaluate_confusion(confusion, loss=0.5)
    assert (found.samples, found.loss) == (130, 0.5)
    assert found.accuracy == pytest.approx(90 / 130)
    assert found.per_class["neutral"] == ClassQuality(
        precision=pytest.approx(20 / 30), recall=pytest.approx(20 / 30), f1=pytest.approx(2 / 3), support=30
    )
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3 + 0.6) / 3)


def test_rows_of_the_confusion_are_the_truth() -> None:
    found = evaluate_predictions([0, 0, 2], [2, 0, 2])
    assert found.confusion == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_a_class_with_too_few_samples_does_not_move_the_macro_figure() -> None:
    enough, few = MIN_CLASS_SUPPORT, MIN_CLASS_SUPPORT - 1
    confusion = np.array([[enough, 0, 0], [few, 0, 0], [0, 0, enough]])
    found = evaluate_confusion(confusion)
    assert found.per_class["neutral"].f1 == 0
    negative = 2 * enough / (enough + enough + few)
    assert found.macro_f1 == pytest.approx((negative + 1) / 2)
    confusion[1] = [enough, 0, 0]
    assert evaluate_confusion(confusion).macro_f1 == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_without_two_large_classes_smaller_ones_count_but_single_samples_do_not() -> None:
    confusion = np.array([[MIN_CLASS_SUPPORT, 0, 0], [0, 0, 1], [0, 0, FEW]])
    assert evaluate_confusion(confusion).macro_f1 == pytest.approx((1 + 2 * FEW / (2 * FEW + 1)) / 2)


def test_with_few_samples_everywhere_every_class_that_occurs_counts() -> None:
    assert evaluate_predictions([0, 2, 2], [0, 2, 0]).macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_nothing_to_evaluate_is_all_zero() -> None:
    found = evaluate_predictions([], [])
    assert (found.samples, found.accuracy, found.macro_f1) == (0, 0.0, 0.0)


def test_different_numbers_of_truths_and_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 true labels cannot be compared with 1"):
        evaluate_predictions([0, 1], [0])


def test_an_evaluation_survives_json() -> None:
    found = evaluate_predictions([0, 1, 2, 2], [0, 2, 2, 1], loss=1.25)
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found
