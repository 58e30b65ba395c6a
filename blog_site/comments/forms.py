"""The form under an article."""

from __future__ import annotations

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from .text import CommentRejected, clean_comment_text


class CommentTextField(forms.CharField):
    """Text that `clean_comment_text` accepts; its rules and words stand there alone."""

    widget = forms.Textarea

    def to_python(self, value: object) -> str:
        return value if isinstance(value, str) else ""

    def clean(self, value: object) -> str:
        try:
            return clean_comment_text(self.to_python(value))
        except CommentRejected as rejection:
            raise ValidationError(rejection.message, code=rejection.code) from rejection


class CommentForm(forms.Form):
    text = CommentTextField(label=_("评论"))

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # handed through as they are
        self.fields["text"].widget.attrs |= {
            "rows": 4,
            "maxlength": settings.COMMENT_MAX_CHARACTERS,
            "placeholder": _("写下你的看法"),
        }
