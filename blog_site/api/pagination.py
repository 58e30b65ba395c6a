"""Pages that stay right while rows are added: by cursor, not by number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CheckedCursorPagination(CursorPagination):
    """A cursor comes back from outside, and DRF would hand its position to the database as it is (a 500)."""

    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100

    def get_page_size(self, request: Request) -> int:
        """Say what is wrong with a size, where DRF would quietly take another one."""
        asked = request.query_params.get(self.page_size_query_param)
        if asked is None:
            return self.page_size
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= self.max_page_size):
            problem = _("应为 1 到 %(limit)d 的整数") % {"limit": self.max_page_size}
            raise ValidationError({self.page_size_query_param: [problem]})
        return int(asked)

    def decode_cursor(self, request: Request) -> Cursor | None:
        try:
            cursor = super().decode_cursor(request)
        except NotFound:
            raise _invalid_cursor() from None
        if cursor is not None and cursor.position is not None and not self.is_position(cursor.position):
            raise _invalid_cursor()
        return cursor

    def is_position(self, position: str) -> bool:
        """Say whether the first ordering column can be compared with this."""
        raise NotImplementedError

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        cursor, size = super().get_schema_operation_parameters(view)
        cursor["description"] = _("从上一页的 next 或 previous 里来；不要自己编")
        size["description"] = _("每页多少条")
        size["schema"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": self.max_page_size,
            "default": self.page_size,
        }
        return [cursor, size]


def _invalid_cursor() -> ValidationError:
    return ValidationError({"cursor": [_("这个游标不对：请用上一页给的 next 或 previous")]})


class ByTime(CheckedCursorPagination):
    """For lists ordered by a time first."""

    def is_position(self, position: str) -> bool:
        try:
            moment = parse_datetime(position)
            return moment is not None and moment.tzinfo is not None and moment.astimezone(UTC) >= EPOCH
        except (ValueError, OverflowError):  # well formed, but there is no such moment
            return False


class ArticlesByTime(ByTime):
    """Newest or oldest first, as `?order=` says, which the view's filters have looked at."""

    orders: Final = {"newest": ("-published_at", "-id"), "oldest": ("published_at", "id")}
    ordering = orders["newest"]

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: APIView) -> tuple[str, ...]:
        return self.orders[request.query_params.get("order") or "newest"]


class LastChangedFirst(ByTime):
    ordering = ("-updated_at", "-id")


class ById(CheckedCursorPagination):
    page_size = 100
    ordering = ("id",)

    def is_position(self, position: str) -> bool:
        return position.isascii() and position.isdigit() and len(position) < 19


class NewestFirst(ById):
    page_size = 20
    ordering = ("-id",)


class BestFirst(CheckedCursorPagination):
    """What a query found: no column gives its order, so the cursor says how many were read. It ends soon."""

    def paginate_queryset(
        self, queryset: QuerySet[Any], request: Request, view: APIView | None = None
    ) -> list[Any]:
        self.request = request
        self.size = self.get_page_size(request)
        self.base_url = request.build_absolute_uri()
        cursor = self.decode_cursor(request)
        self.read = cursor.offset if cursor else 0
        found = list(queryset[self.read : self.read + self.size + 1])
        self.has_next, self.has_previous = len(found) > self.size, self.read > 0
        return found[: self.size]

    def is_position(self, position: str) -> bool:
        return False

    def get_next_link(self) -> str | None:
        return self._link(self.read + self.size) if self.has_next else None

    def get_previous_link(self) -> str | None:
        return self._link(max(0, self.read - self.size)) if self.has_previous else None

    def _link(self, offset: int) -> str:
        return self.encode_cursor(Cursor(offset=offset, reverse=False, position=None))
