from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import DEFAULT_DB_ALIAS
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class UsersConfig(AppConfig):
    name = "blog_site.users"
    label = "users"
    verbose_name = _("用户")

    def ready(self) -> None:
        post_migrate.connect(_grant_moderators, dispatch_uid="users.grant_moderators")


def _grant_moderators(sender: AppConfig, using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """Grant as soon as an app's permissions exist: Django makes them after all migrations, in its own
    `post_migrate` handler, which was connected before this one; a migration would come too early."""
    from .services import MODERATOR_PERMISSIONS, grant_moderators

    if using == DEFAULT_DB_ALIAS and sender.label in {app for app, _codename in MODERATOR_PERMISSIONS}:
        grant_moderators()
