from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DashboardConfig(AppConfig):
    name = "blog_site.dashboard"
    label = "dashboard"
    verbose_name = _("数据")
