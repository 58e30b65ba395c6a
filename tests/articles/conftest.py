from __future__ import annotations

import pytest
from django.core.cache import cache
from django.test import Client

from blog_site.users.models import User
from tests.blog import make_user


@pytest.fixture
def writer(client: Client) -> User:
    """Somebody who is signed in and has asked for nothing yet."""
    cache.clear()
    user = make_user("writer", display_name="林夏")
    client.force_login(user)
    return user
