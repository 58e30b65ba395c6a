"""The form in which articles are written."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from .models import Article
from .services import clean_tag_names

MAX_TAGS = 8
MAX_BODY_CHARACTERS = 100_000
_BETWEEN_TAGS = re.compile(r"[,，、;；\n]")


class ArticleForm(forms.ModelForm):
    tag_names = forms.CharField(
        label=_("标签"),
        required=False,
        help_text=_("用逗号隔开，最多 8 个，例如：早餐, 豆浆, 老店"),
    )

    class Meta:
        model = Article
        fields = ("title", "category", "summary", "body_markdown")
        widgets = {
            "summary": forms.Textarea(attrs={"rows": 2}),
            "body_markdown": forms.Textarea(attrs={"rows": 20, "class": "manuscript", "spellcheck": "false"}),
        }
        help_texts = {
            "summary": _("列表里的一两句话，最多 300 字，可以不填。"),
            "body_markdown": "",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["category"].empty_label = _("选一个分类")
        self.fields["body_markdown"].max_length = MAX_BODY_CHARACTERS
        self.fields["body_markdown"].widget.attrs["maxlength"] = MAX_BODY_CHARACTERS
        if self.instance.pk:
            self.initial["tag_names"] = ", ".join(tag.name for tag in self.instance.tags.all())

    def clean_body_markdown(self) -> str:
        body: str = self.cleaned_data["body_markdown"]
        if len(body) > MAX_BODY_CHARACTERS:
            raise forms.ValidationError(
                _("正文有 %(count)d 字，最多 %(limit)d 字。请删去一些或分成两篇。"),
                params={"count": len(body), "limit": MAX_BODY_CHARACTERS},
            )
        return body

    def clean_tag_names(self) -> list[str]:
        typed = _BETWEEN_TAGS.split(self.cleaned_data["tag_names"])
        names = clean_tag_names([name.strip().lstrip("#") for name in typed])
        if len(names) > MAX_TAGS:
            raise forms.ValidationError(
                _("有 %(count)d 个标签，最多 %(limit)d 个。"), params={"count": len(names), "limit": MAX_TAGS}
            )
        return names
