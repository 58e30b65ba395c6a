from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class TrainingConfig(AppConfig):
    name = "blog_site.training"
    label = "training"
    verbose_name = _("训练")

    def ready(self) -> None:
        from blog_site.training import checks  # noqa: F401  # registers the check
