"""Connections that stay open between requests."""

from __future__ import annotations

import pytest
from django.db.utils import ConnectionHandler

from blog_site.database import connections
from blog_site.database.connections import trust_recent_connections

pytestmark = pytest.mark.django_db


class OneThatStays:
    """A connection of its own, as a web process keeps it from one request to the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        handler = ConnectionHandler(
            {
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": ":memory:",
                    "CONN_MAX_AGE": None,
                    "CONN_HEALTH_CHECKS": True,
                }
            }
        )
        monkeypatch.setattr(connections, "connections", handler)
        self.asked: list[bool] = []
        self._connection = handler["default"]
        is_usable = self._connection.is_usable
        monkeypatch.setattr(
            self._connection, "is_usable", lambda: self.asked.append(is_usable()) or self.asked[-1]
        )
        self._connection.connect()

    def request(self) -> None:
        self._connection.close_if_unusable_or_obsolete()  # Django's own receiver
        trust_recent_connections()
        for _ in range(2):
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")


def test_a_connection_that_was_asked_a_moment_ago_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TRUSTED_SECONDS", 60.0)
    connection = OneThatStays(monkeypatch)
    for _ in range(3):
        connection.request()
    assert connection.asked == [True]


def test_a_connection_that_was_idle_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TRUSTED_SECONDS", 0.0)
    connection = OneThatStays(monkeypatch)
    for _ in range(3):
        connection.request()
    assert connection.asked == [True, True, True]
