from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LabelsConfig(AppConfig):
    name = "blog_site.labels"
    label = "labels"
    verbose_name = _("标注与样本")

    def ready(self) -> None:
        from . import checks  # noqa: F401  # registers the check
