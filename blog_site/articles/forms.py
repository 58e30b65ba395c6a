"""The form in which articles are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from blog_site.media.models import Image
from blog_site.users.names import clean_name

from .models import Article
from .services import MAX_BODY_CHARACTERS, check_body, clean_tag_names, is_slug_taken

COVERS_OFFERED = 12
_BETWEEN_TAGS = re.compile(r"[,，、;；\n]")
_MINUTES = "%Y-%m-%dT%H:%M"  # what a browser's field for a moment reads and sends


def split_tag_names(typed: str) -> list[str]:
    """The tags of a line of them. Raises ValidationError for too many, and for one that is too long."""
    return clean_tag_names([name.strip().lstrip("#") for name in _BETWEEN_TAGS.split(typed)])


class CoverField(forms.ModelChoiceField):
    """One of the writer's own pictures."""

    def label_from_instance(self, obj: Image) -> str:
        return f"{obj.width}×{obj.height}"


class ArticleForm(forms.ModelForm):
    tag_names = forms.CharField(
        label=_("标签"),
        required=False,
        help_text=_("用逗号隔开，最多 8 个，例如：早餐, 豆浆, 老店"),
    )
    cover = CoverField(
        Image.objects.none(),
        label=_("封面"),
        required=False,
        widget=forms.RadioSelect,
        empty_label=_("不要封面"),
    )
    publish_at = forms.DateTimeField(
        label=_("发布时间"),
        required=False,
        input_formats=[_MINUTES, f"{_MINUTES}:%S", "%Y-%m-%d %H:%M"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=_MINUTES),
    )

    class Meta:
        model = Article
        fields = ("title", "category", "summary", "body_markdown", "slug", "cover")
        widgets = {
            "summary": forms.Textarea(attrs={"rows": 2}),
            "body_markdown": forms.Textarea(attrs={"rows": 20, "class": "manuscript", "spellcheck": "false"}),
        }
        help_texts = {
            "summary": _("列表里的一两句话，最多 300 字，可以不填。"),
            "body_markdown": "",
            "slug": _("不填就用标题的拼音。发布之后不能再改。"),
        }

    def __init__(self, *args: Any, action: str = "draft", **kwargs: Any) -> None:
        """`action` is what the button that was pressed is for; it says what must be filled in."""
        super().__init__(*args, **kwargs)
        self.action = action
        self.saved_slug = self.instance.slug  # what is typed may not be an address yet
        self.fields["title"].error_messages["required"] = _("还没有写标题。")
        self.fields["category"].error_messages["required"] = _("还没有选分类。")
        self.fields["body_markdown"].error_messages["required"] = _("还没有写正文。")
        self.fields["category"].empty_label = _("选一个分类")
        self.fields["body_markdown"].max_length = MAX_BODY_CHARACTERS
        self.fields["body_markdown"].widget.attrs["maxlength"] = MAX_BODY_CHARACTERS
        self.fields["slug"].required = False
        self.fields["slug"].disabled = self.instance.is_public()
        self.fields["cover"].queryset = Image.objects.filter(owner=self.instance.author)
        self.fields["publish_at"].help_text = _zone_hint()
        if self.instance.pk:
            self.initial["tag_names"] = self.instance.tag_names()
        if self.instance.is_scheduled():
            self.initial["publish_at"] = self.instance.published_at

    def restore(self, typed: Mapping[str, str]) -> None:
        """Show what was kept of an earlier visit in place of what is saved."""
        self.initial |= {name: value for name, value in typed.items() if name in self.fields}

    def offered_covers(self) -> list[Image]:
        """The pictures to choose from: the newest, and the chosen one."""
        field = self.fields["cover"]
        newest = list(field.queryset[:COVERS_OFFERED])
        chosen = str(self["cover"].value() or "")
        if chosen.isdecimal() and chosen not in {str(image.pk) for image in newest}:
            newest += field.queryset.filter(pk=min(int(chosen), 2**63 - 1))
        return newest

    def clean_title(self) -> str:
        if not (title := clean_name(self.cleaned_data["title"])):
            raise forms.ValidationError(_("标题里没有看得见的字。"))
        return title

    def clean_body_markdown(self) -> str:
        body: str = self.cleaned_data["body_markdown"]
        check_body(body)
        return body

    def clean_tag_names(self) -> list[str]:
        return split_tag_names(self.cleaned_data["tag_names"])

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"].lower()
        if slug and is_slug_taken(slug, article=self.instance):
            raise forms.ValidationError(_("网址名“%(slug)s”已经有别的文章在用。"), params={"slug": slug})
        return slug

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.action == "schedule" and "publish_at" in cleaned:
            at = cleaned["publish_at"]
            if at is None:
                self.add_error("publish_at", _("定在什么时候发布？"))
            elif at <= timezone.now():
                self.add_error("publish_at", _("这个时间已经过去了。"))
        return cleaned


def _zone_hint() -> str:
    """Say whose clock a moment is read by."""
    zone = timezone.get_current_timezone_name()
    return (
        gettext("按北京时间。")
        if zone == "Asia/Shanghai"
        else gettext("按 %(zone)s 的时间。") % {"zone": zone}
    )
