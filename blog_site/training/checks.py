"""What `manage.py check` says of the settings of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from blog_site.training.federation import launcher_problem
from blog_site.training.image_rollout import settings_problem


@register()
def check_launcher(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a launcher that is not known."""
    problem = launcher_problem()
    return [Error(problem, id="training.E001")] if problem else []


@register()
def check_rollouts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report settings of rollouts that are missing or cannot be."""
    problem = settings_problem()
    return [Error(problem, id="training.E002")] if problem else []
