"""The gate between a run and the champion's place: pure arithmetic on the run's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str  # in Chinese: it is shown on the run's page


def judge_candidate(report: Mapping[str, Any], *, max_macro_f1_drop: float) -> Verdict:
    """Compare candidate and champion on the same held-out samples.

    The candidate may be worse by `max_macro_f1_drop` (held-out figures are estimates, and new samples are worth
    having), but not more; without a champion it only has to be better than guessing.
    """
    candidate, champion = report["candidate_evaluation"], report["champion_evaluation"]
    if candidate["samples"] == 0:
        return Verdict(False, "没有留出样本，无法比较：请先导入或标注更多样本")
    if report["artifact"] == report["champion"]:
        return Verdict(False, "训练没有改变模型：候选与在用模型的摘要值相同")
    measured = f"宏平均 F1 {candidate['macro_f1']:.4f}（{candidate['samples']} 条留出样本）"
    if champion is None:
        classes = sum(1 for quality in candidate["per_class"].values() if quality["support"] > 0)
        chance = 1 / max(classes, 1)
        if candidate["accuracy"] <= chance:
            return Verdict(False, f"准确率 {candidate['accuracy']:.4f} 不高于瞎猜的 {chance:.4f}")
        return Verdict(True, f"首个模型：{measured}")
    drop = champion["macro_f1"] - candidate["macro_f1"]
    compared = f"{measured}，在用模型 {champion['macro_f1']:.4f}"
    if drop > max_macro_f1_drop:
        return Verdict(False, f"{compared}：下降 {drop:.4f}，超过允许的 {max_macro_f1_drop:.4f}")
    return Verdict(True, compared)
