"""What `manage.py check` says of the labeller's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from .labellers import labeller_problem


@register()
def check_labeller(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report settings with which no labeller can be made."""
    problem = labeller_problem(settings)
    return [Error(problem, id="labels.E001")] if problem else []
