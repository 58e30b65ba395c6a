"""Pages while Redis is away: slower, and the same."""

from __future__ import annotations

import pytest
from django.core.cache import caches
from django.urls import reverse

from tests.blog import PASSWORD
from tests.comments.rows import make_user
from tests.servers import find_free_port


@pytest.fixture
def redis_away(settings) -> None:
    """The settings of REDIS_URL, and nobody behind its address."""
    settings.CACHES = {
        "default": {
            "BACKEND": "blog_site.cache.ForgivingRedisCache",
            "LOCATION": f"redis://127.0.0.1:{find_free_port()}/0",
            "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
        }
    }
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"


def test_a_cache_that_is_away_is_an_empty_one(redis_away: None) -> None:
    cache = caches["default"]
    cache.set("a", 1)
    assert cache.get("a", "nothing") == "nothing"
    assert cache.get_many(["a"]) == {}
    assert cache.set_many({"a": 1}) == ["a"]
    assert not cache.add("a", 1)
    assert not cache.touch("a")
    assert cache.incr("a") == 1
    assert not cache.delete("a")
    assert "a" not in cache


@pytest.mark.django_db
def test_signing_in_and_out_goes_on_without_redis(redis_away: None, client) -> None:
    make_user("reader", password=PASSWORD)

    client.post(reverse("users:sign_in"), {"username": "reader", "password": PASSWORD})
    assert "reader" in client.get("/").content.decode()

    assert client.post(reverse("users:sign_out")).status_code == 302
    assert "reader" not in client.get("/").content.decode()
