"""What one model says of one text; shared by the model's own process and by clients that only speak HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What one model says of one text."""

    label: str
    score: float  # the label's probability
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Attribution:
    """How much a part of a text speaks for the label that the model gave the whole."""

    start: int  # code points of the text as it was given, start to end
    end: int
    text: str  # that part
    weight: float  # log-odds of the label that are gone without it; below 0 where it speaks against the label
