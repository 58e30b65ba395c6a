"""Pages that stay right while rows are added: by cursor, not by number."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination, PageNumberPagination
from rest_framework.request import Request

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CheckedCursorPagination(CursorPagination):
    """A cursor comes back from outside, and DRF would hand its position to the database as it is (a 500)."""

    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100

    def decode_cursor(self, request: Request) -> Cursor | None:
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not self.is_position(cursor.position):
            raise NotFound(self.invalid_cursor_message)
        return cursor

    def is_position(self, position: str) -> bool:
        """Say whether the first ordering column can be compared with this."""
        raise NotImplementedError


class ByTime(CheckedCursorPagination):
    """For lists ordered by a time first."""

    def is_position(self, position: str) -> bool:
        try:
            moment = parse_datetime(position)
            return moment is not None and moment.tzinfo is not None and moment.astimezone(UTC) >= EPOCH
        except (ValueError, OverflowError):  # well formed, but there is no such moment
            return False


class NewestArticlesFirst(ByTime):
    ordering = ("-published_at", "-id")


class ById(CheckedCursorPagination):
    page_size = 100
    ordering = ("id",)

    def is_position(self, position: str) -> bool:
        return position.isascii() and position.isdigit() and len(position) < 19


class BestFirst(PageNumberPagination):
    """By number: what a query found has an end, and an order that no column gives."""

    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100
