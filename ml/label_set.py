"""The labels a comment can carry; a label's position is its class index in every model."""

from __future__ import annotations

from typing import Final

LABELS: Final = ("negative", "neutral", "positive")
