"""The page of one's tokens, as a browser without scripts has it."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from blog_site.api.models import Token
from blog_site.api.services import make_token
from tests.comments.rows import make_user

pytestmark = pytest.mark.django_db
PAGE = "/me/tokens/"


@pytest.fixture
def me(client):
    user = make_user("laowang")
    client.force_login(user)
    return user


def test_a_token_is_made_shown_once_and_works(client, me) -> None:
    made = client.post(PAGE, {"name": "备份脚本", "days": "30"})
    (secret,) = re.findall(r'class="secret">(hs_[\w-]+)<', made.content.decode())
    assert "no-store" in made["Cache-Control"]
    page = client.get(PAGE).content.decode()
    assert "备份脚本" in page
    assert secret not in page
    assert "还没有用过" in page
    who = Client().get("/api/v1/me/", HTTP_AUTHORIZATION=f"Bearer {secret}")
    assert who.json()["username"] == "laowang"
    assert "最近用于" in client.get(PAGE).content.decode()


def test_a_token_may_last(client, me) -> None:
    client.post(PAGE, {"name": "电视", "days": "0"})
    assert Token.objects.get().expires_at is None
    assert "一直有效" in client.get(PAGE).content.decode()


@pytest.mark.parametrize(
    "fields", [{}, {"name": "", "days": "30"}, {"name": "x", "days": "31"}, {"name": "x" * 61}]
)
def test_a_form_that_is_not_right_makes_none(client, me, fields: dict[str, str]) -> None:
    assert client.post(PAGE, fields).status_code == 400
    assert not Token.objects.exists()


def test_one_is_revoked_or_all_and_nobody_elses(client, me) -> None:
    other = make_token(owner=make_user(), name="a stranger's").token
    first, _second, _third = (make_token(owner=me, name=name).token for name in ("一", "二", "三"))
    assert client.post(f"{PAGE}{other.pk}/revoke/").status_code == 404
    assert client.get(f"{PAGE}{first.pk}/revoke/").status_code == 405
    page = client.post(f"{PAGE}{first.pk}/revoke/", follow=True).content.decode()
    assert "令牌“一”已吊销" in page
    assert me.api_tokens.count() == 2
    assert "已吊销 2 个令牌" in client.post(f"{PAGE}revoke/", follow=True).content.decode()
    assert Token.objects.get() == other


def test_the_page_is_for_whoever_is_signed_in_and_the_profile_leads_to_it(client) -> None:
    assert client.get(PAGE).status_code == 302
    client.force_login(make_user())
    assert f'href="{PAGE}"' in client.get("/me/").content.decode()


def test_a_name_is_text(client, me) -> None:
    make_token(owner=me, name="<script>alert(1)</script>")
    assert "<script>" not in client.get(PAGE).content.decode()
