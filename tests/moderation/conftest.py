from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from blog_site.users.models import MODERATORS, User
from tests.comments.rows import make_user


@pytest.fixture
def moderator(client: Client) -> User:
    """Somebody who is a moderator and nothing more, signed in."""
    user = make_user("moderator", is_staff=True)
    user.groups.add(Group.objects.get(name=MODERATORS))
    client.force_login(user)
    return user
