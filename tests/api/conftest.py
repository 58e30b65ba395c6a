from __future__ import annotations

from tests.comments.conftest import inference

__all__ = ["inference"]
