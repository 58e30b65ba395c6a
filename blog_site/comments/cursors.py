"""Moments as the changes feed hands them out and takes them back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from django.utils import timezone

from .decisions import REMOVALS_KEPT

# A change becomes visible to others when its transaction ends, not when it was dated: look back a little.
OVERLAP: Final = timedelta(seconds=10)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def make_cursor() -> str:
    """The cursor of a page made now."""
    return write_cursor(timezone.now() - OVERLAP)


def write_cursor(moment: datetime) -> str:
    return str((moment - _EPOCH) // timedelta(microseconds=1))


def read_cursor(cursor: str) -> datetime | None:
    """Read a cursor; None for what is none. One from long ago counts as one of a day ago."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 18):
        return None
    return max(_EPOCH + timedelta(microseconds=int(cursor)), timezone.now() - REMOVALS_KEPT)
