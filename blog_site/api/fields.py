"""Fields that take exactly what the schema says, where DRF's own are lenient."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Any

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_FIRST_YEAR, _LAST_YEAR = 1970, 9998  # a day beyond has no moment in every time zone


class StrictStringField(serializers.CharField):
    """A string; DRF makes a text of a number."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictIntegerField(serializers.IntegerField):
    """An integer of a body; DRF takes 7.0 and "7" as well."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class QueryIntegerField(serializers.IntegerField):
    """An integer of a query string, in plain digits."""

    def to_internal_value(self, data: Any) -> int:
        if not (data.isascii() and data.isdigit()):
            self.fail("invalid")
        return super().to_internal_value(data)


class QueryBooleanField(serializers.BooleanField):
    """true or false in a query string; DRF takes yes, on and 1 as well."""

    def to_internal_value(self, data: Any) -> bool:
        if data not in ("true", "false"):
            self.fail("invalid", input=data)
        return bool(super().to_internal_value(data))


@extend_schema_field({"type": "string", "minLength": 1})
class KnownField(serializers.SlugRelatedField):
    """The row that a string names, by its slug or its username."""

    def to_internal_value(self, data: Any) -> models.Model:
        if not isinstance(data, str) or "\x00" in data or not _is_encodable(data):
            self.fail("invalid")
        row: models.Model = super().to_internal_value(data)
        return row


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can spell
        return False
    return True


class MomentField(serializers.DateTimeField):
    """A moment with its offset from UTC, as RFC 3339 writes it: 2026-05-01T08:30:00+08:00."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            self.fail("invalid", format="YYYY-MM-DDThh:mm:ss+08:00")
        moment: datetime = super().to_internal_value(value)
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            self.fail("invalid", format="YYYY-MM-DDThh:mm:ss+08:00")
        return moment


class DayField(serializers.DateField):
    """A day in the blog's own time zone, as 2026-05-01."""

    def to_internal_value(self, value: Any) -> date:
        if not _DAY.fullmatch(value):  # ISO 8601 has other ways to write one
            self.fail("invalid", format="YYYY-MM-DD")
        day: date = super().to_internal_value(value)
        if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
            self.fail("invalid", format="YYYY-MM-DD")
        return day


class DayRangeFilter(serializers.Serializer[Any]):
    """From one day to another, both included."""

    to = DayField(required=False, help_text=gettext_lazy("到这一天为止，含当天，如 2026-05-31"))

    def get_fields(self) -> dict[str, Any]:
        # No attribute of a class can have this name.
        since = DayField(required=False, help_text=gettext_lazy("从这一天起，如 2026-05-01"))
        return {**super().get_fields(), "from": since}


def begin_of(day: date) -> datetime:
    """The moment at which a day begins here."""
    return timezone.make_aware(datetime.combine(day, time.min))


def end_of(day: date) -> datetime:
    """The moment at which the next day begins."""
    return begin_of(day + timedelta(days=1))
