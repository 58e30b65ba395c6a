from __future__ import annotations

import time

import pytest
from django.test import Client

from blog_site import limits
from blog_site.api.services import make_token
from blog_site.limits import Rate
from tests.api.answers import assert_error, post
from tests.comments.rows import make_article, make_user

pytestmark = pytest.mark.django_db
LIST = "/api/v1/articles/"
ME = "/api/v1/me/"


@pytest.fixture(autouse=True)
def _two_a_minute(settings, monkeypatch) -> None:
    """Two of everything, with the clock amid a minute, so that none ends while a test counts."""
    settings.ALLOWANCES = {key: [Rate(uses=2, seconds=60)] for key in settings.ALLOWANCES}
    now = time.time() // 60 * 60 + 20
    monkeypatch.setattr(limits.time, "time", lambda: now)


def statuses(client: Client, address: str, times: int = 3, **extra: str) -> list[int]:
    return [client.get(address, **extra).status_code for _ in range(times)]


def test_an_address_that_asks_too_often_is_told_when_to_come_again(client) -> None:
    assert statuses(client, LIST) == [200, 200, 429]
    refused = client.get(LIST)
    assert_error(refused, 429, "throttled")
    assert refused["Retry-After"] == "40"
    assert client.get(LIST, REMOTE_ADDR="198.51.100.7").status_code == 200


def test_the_next_minute_begins_anew(client, monkeypatch) -> None:
    assert statuses(client, LIST) == [200, 200, 429]
    later = limits.time.time() + 40
    monkeypatch.setattr(limits.time, "time", lambda: later)
    assert client.get(LIST).status_code == 200


def test_an_account_counts_as_one_by_whatever_token_and_from_wherever(client) -> None:
    user, other = make_user(), make_user()
    first, second = (f"Bearer {make_token(owner=user, name='x').secret}" for _ in range(2))
    assert client.get(ME, HTTP_AUTHORIZATION=first).status_code == 200
    assert statuses(client, ME, HTTP_AUTHORIZATION=second, REMOTE_ADDR="198.51.100.7") == [200, 429, 429]
    strangers = f"Bearer {make_token(owner=other, name='x').secret}"
    assert client.get(ME, HTTP_AUTHORIZATION=strangers).status_code == 200
    assert client.get(LIST).status_code == 200  # whoever is not signed in at that address is somebody else


def test_reading_and_changing_are_counted_apart(client) -> None:
    make_article(slug="soy-milk")
    client.force_login(make_user())
    comments = f"{LIST}soy-milk/comments/"
    assert statuses(client, comments) == [200, 200, 429]
    assert [post(client, {"text": "好"}, comments).status_code for _ in range(3)] == [201, 201, 429]


def test_a_household_counts_as_one_address(client) -> None:
    first, second = "2001:db8:1:2::1", "2001:db8:1:2:ffff::9"
    assert statuses(client, LIST, 2, REMOTE_ADDR=first) == [200, 200]
    assert client.get(LIST, REMOTE_ADDR=second).status_code == 429
    assert client.get(LIST, REMOTE_ADDR="2001:db8:1:3::1").status_code == 200


def test_the_description_and_the_documentation_are_not_counted(client) -> None:
    assert statuses(client, "/api/v1/schema/") == [200, 200, 200]
    assert statuses(client, "/api/v1/docs/") == [200, 200, 200]
