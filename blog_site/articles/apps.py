from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ArticlesConfig(AppConfig):
    name = "blog_site.articles"
    label = "articles"
    verbose_name = _("文章")
