from __future__ import annotations

import pytest
from django.core.cache import cache

from tests.comments.conftest import inference

__all__ = ["inference"]


@pytest.fixture(autouse=True)
def _nobody_has_asked_yet() -> None:
    """Forget how often the accounts and the address of earlier tests have asked."""
    cache.clear()
