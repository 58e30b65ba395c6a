from __future__ import annotations

import pytest
from django.core.cache import cache

from blog_site.articles.models import Article
from tests.comments.conftest import inference
from tests.comments.rows import make_article, make_user

__all__ = ["inference"]


@pytest.fixture(autouse=True)
def _nobody_has_asked_yet() -> None:
    """Forget how often the accounts and the address of earlier tests have asked."""
    cache.clear()


@pytest.fixture
def article() -> Article:
    return make_article(slug="soy-milk")


@pytest.fixture
def reader(client):
    user = make_user("reader", display_name="小满")
    client.force_login(user)
    return user
