"""What one model says of one text; shared by the model's own process and by clients that only speak HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What one model says of one text."""

    label: str
    score: float  # the label's probability
    probabilities: dict[str, float]
