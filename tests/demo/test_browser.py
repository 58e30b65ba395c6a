"""The demo's visitor against the blog itself, served over real HTTP."""

from __future__ import annotations

import pytest

from blog_site.demo.browser import VisitFailed, Visitor, csrf_token


@pytest.mark.parametrize(
    "page",
    [
        '<form><input type="hidden" name="csrfmiddlewaretoken" value="secret"></form>',
        "<form><input value='secret' name='csrfmiddlewaretoken' type='hidden'/></form>",
        '<input name="q" value="no"><p>csrfmiddlewaretoken</p><INPUT NAME="csrfmiddlewaretoken" VALUE="secret">',
        '<form>\n<input type="hidden"\n   name="csrfmiddlewaretoken"\n   value="secret"\n></form><p>unclosed',
    ],
)
def test_the_token_is_found_however_the_form_is_written(page: str) -> None:
    assert csrf_token(page) == "secret"


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<p>Not Found</p>",
        '<input name="q" value="x">',
        '<input name="csrfmiddlewaretoken">',
        '<!-- <input name="csrfmiddlewaretoken" value="secret"> -->',
        '<meta name="csrfmiddlewaretoken" value="secret">',
    ],
)
def test_a_page_without_a_token_is_said_to_have_none(page: str) -> None:
    with pytest.raises(VisitFailed, match="CSRF token"):
        csrf_token(page)


@pytest.mark.django_db(transaction=True)
def test_a_visitor_signs_up_like_a_browser_and_a_wrong_password_is_noticed(live_server) -> None:
    password = "水磨年糕 with 27 grains"
    with Visitor(live_server.url) as visitor:
        visitor.submit("/sign-up/", {"username": "visitor-1", "password1": password, "password2": password})
        assert "visitor-1" in visitor.open("/").text

    with Visitor(live_server.url) as visitor:
        visitor.sign_in("/sign-in/", "visitor-1", password)
    with Visitor(live_server.url) as visitor, pytest.raises(VisitFailed, match="visitor-1 could not sign in"):
        visitor.sign_in("/sign-in/", "visitor-1", "another password")


@pytest.mark.django_db(transaction=True)
def test_a_page_that_fails_is_named_with_its_answer(live_server) -> None:
    with (
        Visitor(live_server.url) as visitor,
        pytest.raises(VisitFailed, match="/articles/nowhere/ answered 404"),
    ):
        visitor.open("/articles/nowhere/")
