"""What changes people: signing up, and what moderators may do."""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission
from django.db import IntegrityError, transaction
from django.db.models import Value
from django.db.models.functions import Lower

from .models import MODERATORS, User

# Named by app and codename: users come first in the tree and import none of these apps.
MODERATOR_PERMISSIONS = (
    ("comments", "view_comment"),
    ("comments", "change_comment"),
    ("comments", "view_prediction"),
    ("comments", "view_report"),
    ("comments", "view_decision"),
    ("comments", "view_rules"),
    ("comments", "change_rules"),
    ("comments", "view_blockedword"),
    ("comments", "add_blockedword"),
    ("comments", "change_blockedword"),
    ("comments", "delete_blockedword"),
    ("labels", "view_label"),
    ("labels", "change_label"),
    ("labels", "add_label"),
    ("labels", "view_sample"),
    ("training", "view_site"),
    ("training", "view_run"),
    ("training", "view_runsite"),
    ("training", "view_round"),
    ("training", "view_modelversion"),
    ("training", "view_rollout"),
)


class UsernameTaken(Exception):
    """Somebody has this name already, in whatever case; another name is needed."""

    def __init__(self, username: str) -> None:
        super().__init__(f"the username {username!r} is taken: choose another one")
        self.username = username


def sign_up_user(*, username: str, password: str, display_name: str = "") -> User:
    """Make an account for a person who has just chosen a name and a password.

    Raises UsernameTaken, also when another sign-up took the name a moment ago.
    """
    # Not `iexact`: on MySQL it follows the collation, and a binary one tells cases apart.
    same_name = User.objects.alias(lowered=Lower("username")).filter(lowered=Lower(Value(username)))
    if same_name.exists():
        raise UsernameTaken(username)
    user = User(username=User.normalize_username(username), display_name=display_name)
    user.set_password(
        password
    )  # before the transaction: hashing is slow, and SQLite has one writer at a time
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:
        raise UsernameTaken(username) from error
    return user


def grant_moderators() -> Group:
    """Give the moderators' group every permission of MODERATOR_PERMISSIONS that exists by now.

    Repeating is safe. Permission rows are made after all migrations, so a call during them grants less.
    """
    group, _created = Group.objects.get_or_create(name=MODERATORS)
    permissions = Permission.objects.select_related("content_type").filter(
        content_type__app_label__in={app for app, _codename in MODERATOR_PERMISSIONS},
        codename__in={codename for _app, codename in MODERATOR_PERMISSIONS},
    )
    wanted = [p for p in permissions if (p.content_type.app_label, p.codename) in MODERATOR_PERMISSIONS]
    group.permissions.add(*wanted)
    return group
