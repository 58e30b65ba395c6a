"""The forms under an article, and those to change and to report a comment."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from .guests import stamp_form, was_written_by_hand
from .models import Report
from .text import GUEST_NAME_MAX, CommentRejected, clean_comment_text, clean_guest_name, clean_note


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["text"].widget.attrs |= {
            "id": "comment-text",
            "rows": 4,
            "required": True,
            "maxlength": settings.COMMENT_MAX_CHARACTERS,
            "placeholder": _("喜欢、不喜欢，都可以直说"),
        }
        if self.is_bound and self.errors.get("text"):
            self.fields["text"].widget.attrs |= {
                "aria-invalid": "true",
                "aria-describedby": "comment-error",
                "autofocus": True,
            }


class GuestCommentForm(CommentForm):
    """For somebody without an account: with a name, and two things that simple programs stumble over."""

    name = forms.CharField(label=_("称呼"), required=False)
    website = forms.CharField(required=False)  # people do not see it, and leave it empty
    stamp = forms.CharField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs |= {
            "id": "comment-name",
            "required": True,
            "maxlength": GUEST_NAME_MAX,
            "autocomplete": "nickname",
        }

    def fresh_stamp(self) -> str:
        """The stamp for the page: that of a form that comes back stays, or mending it would take too little time."""
        return str(self.data.get("stamp") or stamp_form())

    def clean_name(self) -> str:
        try:
            return clean_guest_name(self.cleaned_data["name"])
        except CommentRejected as rejection:
            raise ValidationError(rejection.message, code=rejection.code) from rejection

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("website") or not was_written_by_hand(self.cleaned_data.get("stamp", "")):
            raise ValidationError(_("提交得太快了，请等几秒再发表一次"), code="too_fast")
        return self.cleaned_data


class ReportForm(forms.Form):
    reason = forms.ChoiceField(label=_("理由"), choices=Report.Reason.choices, widget=forms.RadioSelect)
    note = forms.CharField(
        label=_("说明"),
        required=False,
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 3, "maxlength": 300}),
    )

    def clean_note(self) -> str:
        try:
            return clean_note(self.cleaned_data["note"])
        except CommentRejected as rejection:
            raise ValidationError(rejection.message, code=rejection.code) from rejection
