from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.utils import timezone

from blog_site.api import services
from blog_site.api.models import Token
from blog_site.api.services import make_token
from tests.api.answers import assert_error, post
from tests.comments.rows import make_user

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/auth/token/"
OWN = "/api/v1/me/tokens/"
ME = "/api/v1/me/"
CREDENTIALS = {"username": "laowang", "password": "correct horse battery"}


def who_is(secret: str, scheme: str = "Bearer"):
    return Client().get(ME, HTTP_AUTHORIZATION=f"{scheme} {secret}")


def test_a_username_and_its_password_get_a_token_each_time(client) -> None:
    user = make_user(**CREDENTIALS)
    first, second = (post(client, {**CREDENTIALS, "name": name}, ADDRESS) for name in ("手机", "备份"))
    assert first.status_code == second.status_code == 200
    assert [token.name for token in user.api_tokens.all()] == ["备份", "手机"]
    for answer in (first, second):
        assert answer["Cache-Control"] == "no-store"
        assert who_is(answer.json()["token"]).json()["username"] == "laowang"


def test_the_database_does_not_know_a_token(client) -> None:
    make_user(**CREDENTIALS)
    secret = post(client, CREDENTIALS, ADDRESS).json()["token"]
    row = Token.objects.values().get()
    assert secret not in str(row)
    assert secret.startswith(row["beginning"])
    assert len(row["beginning"]) < 9


def test_a_token_got_for_a_password_ends_when_the_site_says(client, settings) -> None:
    settings.API_SIGN_IN_TOKEN_DAYS = 3
    make_user(**CREDENTIALS)
    post(client, CREDENTIALS, ADDRESS)
    post(client, {**CREDENTIALS, "expires_in_days": 5}, ADDRESS)
    left = [(token.expires_at - timezone.now()).days for token in Token.objects.order_by("id")]
    assert left == [2, 4]


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
        {**CREDENTIALS, "name": 5},
        {**CREDENTIALS, "expires_in_days": "5"},
        {**CREDENTIALS, "expires_in_days": 0},
    ],
    ids=lambda body: repr(body)[:50],
)
def test_anything_else_gets_none(client, body) -> None:
    make_user("laowang")
    assert_error(post(client, body, ADDRESS), 400, "invalid")
    assert not Token.objects.exists()


def test_somebody_locked_out_gets_none(client) -> None:
    make_user(**CREDENTIALS, is_active=False)
    assert_error(post(client, CREDENTIALS, ADDRESS), 400, "invalid")


def test_passwords_are_not_read(client) -> None:
    assert_error(client.get(ADDRESS), 405, "method_not_allowed")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token"])
def test_either_word_may_stand_before_a_token(scheme: str) -> None:
    secret = make_token(owner=make_user(), name="x").secret
    assert who_is(secret, scheme).status_code == 200


@pytest.mark.parametrize("secret", ["", " ", "hs_forged", "\xff", "a b", "x" * 5000])
def test_what_is_no_token_is_refused(secret: str) -> None:
    make_token(owner=make_user(), name="x")
    assert_error(who_is(secret), 401, "authentication_failed")


def test_an_expired_token_is_refused_and_says_so() -> None:
    made = make_token(owner=make_user(), name="x", expires_at=timezone.now() + timedelta(hours=1))
    assert who_is(made.secret).status_code == 200
    Token.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "过期" in assert_error(who_is(made.secret), 401, "authentication_failed")["detail"]


def test_the_last_use_is_noted_at_most_once_a_minute(django_assert_num_queries) -> None:
    made = make_token(owner=make_user(), name="x")
    who_is(made.secret)
    first = Token.objects.get().last_used_at
    assert first is not None
    who_is(made.secret)
    assert Token.objects.get().last_used_at == first
    Token.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    who_is(made.secret)
    assert Token.objects.get().last_used_at > first


def test_ones_tokens_are_listed_made_and_revoked_and_nobody_elses(client) -> None:
    other = make_token(owner=make_user(), name="a stranger's").token
    client.force_login(make_user())
    made = post(client, {"name": "脚本", "expires_in_days": 30}, OWN)
    assert made.status_code == 201
    secret = made.json()["token"]
    (listed,) = client.get(OWN).json()["results"]
    assert listed["name"] == "脚本"
    assert "token" not in listed
    assert_error(client.get(f"{OWN}{other.pk}/"), 404, "not_found")
    assert_error(client.delete(f"{OWN}{other.pk}/"), 404, "not_found")
    assert client.delete(f"{OWN}{listed['id']}/").status_code == 204
    assert_error(who_is(secret), 401, "authentication_failed")
    assert Token.objects.get() == other


def test_a_token_revokes_itself_and_makes_no_other(client) -> None:
    secret = make_token(owner=make_user(), name="phone").secret
    authorized = {"HTTP_AUTHORIZATION": f"Bearer {secret}"}
    assert_error(post(client, {"name": "another"}, OWN, **authorized), 403, "permission_denied")
    assert client.get(f"{OWN}current/", **authorized).json()["name"] == "phone"
    assert client.delete(f"{OWN}current/", **authorized).status_code == 204
    assert_error(client.get(ME, **authorized), 401, "authentication_failed")


def test_a_session_has_no_token_to_revoke(client) -> None:
    client.force_login(make_user())
    assert_error(client.delete(f"{OWN}current/"), 404, "not_found")


def test_an_account_has_so_many_tokens_and_expired_ones_do_not_count(client, monkeypatch) -> None:
    monkeypatch.setattr(services, "MAX_TOKENS", 2)
    client.force_login(make_user())
    assert [post(client, {"name": "x"}, OWN).status_code for _ in range(3)] == [201, 201, 409]
    Token.objects.update(expires_at=timezone.now() - timedelta(days=1))
    assert post(client, {"name": "x"}, OWN).status_code == 201
    assert Token.objects.count() == 1


@pytest.mark.django_db(transaction=True)  # it makes a table
def test_tokens_of_the_time_before_go_on_and_their_plain_text_goes() -> None:
    user = make_user()
    migration = import_module("blog_site.api.migrations.0002_hash_old_tokens")
    then = timezone.now() - timedelta(days=100)
    with connection.schema_editor() as editor:
        editor.create_model(migration.OldToken)
    try:
        migration.OldToken.objects.create(key="a" * 40, user_id=user.pk, created=then)
        with connection.schema_editor() as editor:
            migration.hash_old_tokens(apps, editor)
        assert who_is("a" * 40, "Token").json()["username"] == user.username
        assert Token.objects.get().created_at == then
        assert not migration.OldToken.objects.exists()
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(migration.OldToken)
