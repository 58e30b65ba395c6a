from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import pgettext_lazy


class MediaConfig(AppConfig):
    name = "blog_site.media"
    label = "media"
    verbose_name = pgettext_lazy("list", "图片")
