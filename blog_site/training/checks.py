"""What `manage.py check` says of the settings of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from blog_site.training.federation import launcher_problem


@register()
def check_launcher(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a launcher that is not known."""
    problem = launcher_problem()
    return [Error(problem, id="training.E001")] if problem else []
