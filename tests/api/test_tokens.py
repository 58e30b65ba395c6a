from __future__ import annotations

import pytest
from rest_framework.authtoken.models import Token

from tests.api.test_comments import assert_error, post
from tests.comments.rows import make_user

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/auth/token/"


def test_a_username_and_its_password_get_a_token_that_stays_the_same(client) -> None:
    user = make_user("laowang", password="correct horse battery")
    credentials = {"username": "laowang", "password": "correct horse battery"}
    first, second = post(client, credentials, ADDRESS), post(client, credentials, ADDRESS)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json() == {"token": Token.objects.get(user=user).key}


@pytest.mark.parametrize(
    "body",
    [
        {"username": "laowang", "password": "wrong"},
        {"username": "nobody", "password": "wrong"},
        {"username": "laowang"},
        {},
        [],
        None,
        {"username": 5, "password": "x"},
        {"username": ["laowang"], "password": {"a": 1}},
        {"username": "\ud800", "password": "x"},
        {"username": "laowang", "password": "\ud800"},
        {"username": "lao\x00wang", "password": "x"},
        {"username": "laowang", "password": "\x00"},
        {"username": "x" * 100_000, "password": "x"},
    ],
    ids=lambda body: repr(body)[:50],
)
def test_anything_else_gets_none(client, body) -> None:
    make_user("laowang")
    assert_error(post(client, body, ADDRESS), 400, "invalid")
    assert not Token.objects.exists()


def test_somebody_locked_out_gets_none(client) -> None:
    make_user("laowang", password="correct horse battery", is_active=False)
    assert_error(
        post(client, {"username": "laowang", "password": "correct horse battery"}, ADDRESS), 400, "invalid"
    )


def test_tokens_are_not_read(client) -> None:
    assert_error(client.get(ADDRESS), 405, "method_not_allowed")
