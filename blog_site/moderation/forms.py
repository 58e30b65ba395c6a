"""What narrows the queue, and what is decided in it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from blog_site.articles.models import Category
from blog_site.comments.models import Sentiment

from .queue import Age, Confidence, Origin


def _choices(kind: Any) -> list[tuple[str, Any]]:
    return [("", _("不限")), *kind.choices]


class QueueFilters(forms.Form):
    """Filters of the queue, from its address; what is not among the choices narrows nothing."""

    sentiment = forms.ChoiceField(label=_("情感"), choices=_choices(Sentiment), required=False)
    confidence = forms.ChoiceField(label=_("把握"), choices=_choices(Confidence), required=False)
    category = forms.ModelChoiceField(
        label=_("分类"),
        queryset=Category.objects.all(),
        empty_label=_("不限"),
        required=False,
        to_field_name="slug",
    )
    age = forms.ChoiceField(label=_("时间"), choices=_choices(Age), required=False)
    origin = forms.ChoiceField(label=_("来自"), choices=_choices(Origin), required=False)

    def narrowing(self) -> dict[str, Any]:
        """The filters that are set and make sense."""
        self.full_clean()
        return {name: value for name, value in self.cleaned_data.items() if value}
