from __future__ import annotations

import pytest
from django.test import Client

from blog_site.articles.models import Article
from blog_site.users.services import grant_moderators
from tests.api.answers import assert_error
from tests.comments.rows import make_article, make_comment, make_user

pytestmark = pytest.mark.django_db
ME = "/api/v1/me/"


@pytest.fixture
def me(client):
    user = make_user("laowang", display_name="老王")
    client.force_login(user)
    return user


def test_one_learns_who_one_is(client, me) -> None:
    said = client.get(ME).json()
    assert (said["username"], said["display_name"], said["is_moderator"]) == ("laowang", "老王", False)
    me.groups.add(grant_moderators())
    assert client.get(ME).json()["is_moderator"] is True


def test_one_changes_ones_profile_and_nothing_else(client, me) -> None:
    fields = {"bio": "住在老城", "username": "admin", "is_staff": True, "is_moderator": True}
    assert client.patch(ME, fields, content_type="application/json").json()["bio"] == "住在老城"
    me.refresh_from_db()
    assert (me.username, me.display_name, me.is_staff) == ("laowang", "老王", False)
    for wrong in ({"bio": "长" * 201}, {"display_name": 5}, {"bio": "\ud800"}):
        error = assert_error(client.patch(ME, wrong, content_type="application/json"), 400, "invalid")
        assert error["fields"].keys() == wrong.keys()


def test_ones_articles_and_comments_are_listed_whatever_their_state_and_nobody_elses(client, me) -> None:
    draft = make_article(author=me, status=Article.Status.DRAFT)
    published = make_article(author=me)
    hidden = make_comment("藏", author=me, status="hidden")
    shown = make_comment("露", author=me)
    make_comment("别人的", article=published)
    assert [a["slug"] for a in client.get(f"{ME}articles/").json()["results"]] == [published.slug, draft.slug]
    assert [c["id"] for c in client.get(f"{ME}comments/").json()["results"]] == [shown.pk, hidden.pk]


def test_a_stranger_has_no_self() -> None:
    for address in (ME, f"{ME}articles/", f"{ME}comments/", f"{ME}tokens/"):
        assert_error(Client().get(address), 401, "not_authenticated")


def test_a_session_changes_nothing_without_its_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user())
    assert_error(client.patch(ME, {"bio": "x"}, content_type="application/json"), 403, "permission_denied")
