from __future__ import annotations

from typing import Any

import pytest

from blog_site.training.gate import judge_candidate
from tests.training.rows import make_evaluation

CANDIDATE, CHAMPION = "c" * 64, "d" * 64


def make_comparison(
    candidate: dict[str, Any], champion: dict[str, Any] | None, **fields: Any
) -> dict[str, Any]:
    return {
        "artifact": CANDIDATE,
        "champion": CHAMPION if champion else None,
        "candidate_evaluation": candidate,
        "champion_evaluation": champion,
        **fields,
    }


@pytest.mark.parametrize(
    ("candidate", "champion", "passed", "words"),
    [
        pytest.param(make_evaluation(0.80), make_evaluation(0.75), True, "0.8000", id="better"),
        pytest.param(make_evaluation(0.80), make_evaluation(0.80), True, "0.8000", id="as good"),
        pytest.param(make_evaluation(0.795), make_evaluation(0.80), True, "0.7950", id="worse within the margin"),
        pytest.param(make_evaluation(0.78), make_evaluation(0.80), False, "下降 0.0200", id="worse by too much"),
        pytest.param(make_evaluation(0.0), make_evaluation(1.0), False, "下降 1.0000", id="useless"),
        pytest.param(make_evaluation(0.80), None, True, "首个模型", id="first model"),
        pytest.param(make_evaluation(0.30), None, False, "不高于瞎猜的 0.3333", id="first model, like guessing"),
        pytest.param(make_evaluation(0.9, samples=0), None, False, "没有留出样本", id="nothing held out"),
        pytest.param(
            make_evaluation(0.9, samples=0), make_evaluation(0.1, samples=0), False, "没有留出样本",
            id="nothing held out, with a champion",
        ),
    ],
)  # fmt: skip
def test_the_candidate_passes_unless_it_is_worse_by_more_than_the_margin(
    candidate: dict[str, Any], champion: dict[str, Any] | None, passed: bool, words: str
) -> None:
    verdict = judge_candidate(make_comparison(candidate, champion), max_macro_f1_drop=0.01)

    assert verdict.passed is passed
    assert words in verdict.reason


def test_a_run_that_changed_nothing_is_refused() -> None:
    same = make_comparison(make_evaluation(0.9), make_evaluation(0.9), artifact=CHAMPION)

    verdict = judge_candidate(same, max_macro_f1_drop=0.01)

    assert not verdict.passed
    assert "摘要值相同" in verdict.reason


@pytest.mark.parametrize(("margin", "passed"), [(0.05, True), (0.001, False), (-0.1, False)])
def test_the_margin_is_the_setting(margin: float, passed: bool) -> None:
    report = make_comparison(make_evaluation(0.88), make_evaluation(0.90))

    assert judge_candidate(report, max_macro_f1_drop=margin).passed is passed


def test_guessing_is_measured_over_the_classes_that_are_held_out() -> None:
    """With two classes a coin is right half of the time, so 0.45 is no model."""
    evaluation = make_evaluation(0.45)
    evaluation["per_class"]["neutral"]["support"] = 0

    assert not judge_candidate(make_comparison(evaluation, None), max_macro_f1_drop=0.01).passed
    assert judge_candidate(make_comparison(make_evaluation(0.45), None), max_macro_f1_drop=0.01).passed
