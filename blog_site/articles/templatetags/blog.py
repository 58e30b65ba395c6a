"""What templates need in words: relative times, percentages, the columns in the header."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import Category

register = template.Library()


@register.filter
def relative_time(moment: datetime) -> str:
    """Say how long ago a moment was; after a month its date, and of one that is yet to come when that will be."""
    minutes = int((timezone.now() - moment).total_seconds() // 60)
    if minutes < -5:  # by less, the clocks of two machines may differ
        return date_format(timezone.localtime(moment), "DATETIME_FORMAT")
    if minutes < 1:
        return _("刚刚")
    if minutes < 60:
        return ngettext("%(count)d 分钟前", "%(count)d 分钟前", minutes) % {"count": minutes}
    hours = minutes // 60
    if hours < 24:
        return ngettext("%(count)d 小时前", "%(count)d 小时前", hours) % {"count": hours}
    days = hours // 24
    if days <= 30:
        return ngettext("%(count)d 天前", "%(count)d 天前", days) % {"count": days}
    return date_format(timezone.localtime(moment), "DATE_FORMAT")


@register.filter
def percent(share: float) -> int:
    """0.934 → 93. Never 100 for less than certain: a model is not sure of anything."""
    return min(int(share * 100 + 0.5), 99) if share < 1 else 100


@register.filter
def tint(pk: int) -> int:
    """Which of the six colours stands behind somebody's initial; always the same one for the same person."""
    return pk % 6


@register.simple_tag
def columns() -> list[Category]:
    return list(Category.objects.all())
