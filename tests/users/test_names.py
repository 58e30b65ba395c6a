"""What names and titles become."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from blog_site.users.names import clean_name
from tests.blog import make_user


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        (" 老  王 ", "老 王"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("\u202e王老\u202c", "王老"),
        ("مرحبا", "مرحبا"),
        ("\u200b\u200d\u3164", ""),
    ],
)
def test_a_name_is_one_line_that_is_seen_and_turns_nothing_round(typed: str, stored: str) -> None:
    assert clean_name(typed) == stored


@pytest.mark.django_db
def test_who_calls_herself_nothing_visible_goes_by_her_username(client: Client) -> None:
    user = make_user()
    client.force_login(user)

    client.post(reverse("users:profile"), {"display_name": "\u200b\u2800", "bio": ""})

    user.refresh_from_db()
    assert str(user) == user.username
