from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client, RequestFactory

from blog_site.health import HealthMiddleware

POD = "10.244.1.7:8000"  # a kubelet asks by the pod's address


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError(2003, "Can't connect to server on 'mysql'")

    monkeypatch.setattr(connection, "cursor", refuse)


@pytest.fixture
def without_a_migration(db: None) -> Callable[[], None]:
    """A migration that is recorded as not applied; gives what applies it. The test's transaction takes it all back."""
    options = {"interactive": False, "verbosity": 0, "fake": True}
    call_command("migrate", "sessions", "zero", **options)
    return lambda: call_command("migrate", "sessions", **options)


@pytest.mark.usefixtures("no_database")
def test_a_process_without_its_database_lives_and_is_not_ready(client: Client) -> None:
    assert client.get("/livez").status_code == 200
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "ready": False,
        "error": "the database does not answer: (2003, \"Can't connect to server on 'mysql'\")",
    }


@pytest.mark.django_db
def test_a_migrated_database_makes_a_process_ready(client: Client) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "error": None})
    assert response["Cache-Control"] == "no-store"


def test_an_unapplied_migration_is_named_until_it_is_applied(
    client: Client, without_a_migration: Callable[[], None]
) -> None:
    missing = client.get("/readyz")
    assert missing.status_code == 503
    assert missing.json()["error"] == ("migrations to apply: sessions.0001_initial; run manage.py migrate")
    without_a_migration()
    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_probe_needs_no_known_host_and_no_tls(client: Client, settings: LazySettings, path: str) -> None:
    settings.ALLOWED_HOSTS = ["blog.example"]
    settings.SECURE_SSL_REDIRECT = True
    assert client.get(path, headers={"host": POD}).status_code == 200
    assert client.head(path, headers={"host": POD}).status_code == 200
    assert client.get("/", headers={"host": POD}).status_code in (301, 400)


def test_probes_are_read_only(client: Client) -> None:
    assert client.post("/livez").status_code == 405


@pytest.mark.django_db
def test_a_process_that_was_ready_still_notices_when_the_database_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = HealthMiddleware(lambda request: pytest.fail("passed on"))
    request = RequestFactory().get("/readyz")
    assert health(request).status_code == 200
    monkeypatch.setattr(connection, "cursor", lambda: (_ for _ in ()).throw(OperationalError("gone away")))
    assert health(request).status_code == 503
