from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CommentsConfig(AppConfig):
    name = "blog_site.comments"
    label = "comments"
    verbose_name = _("评论")
