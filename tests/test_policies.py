"""What a browser is told it may do with our pages, and that they keep to it before any browser is asked."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory

from blog_site.policies import PAGES, tell_policies, write_policy
from tests.blog import PASSWORD, make_user

ROOT = Path(__file__).resolve().parents[1]
ERROR_PAGES = sorted((ROOT / "infra" / "nginx" / "errors").glob("*.html"))
# A script without `src` is run where it stands, unless its type says that it is data.
INLINE = re.compile(
    r"<style|\sstyle=|\son[a-z]+=[\"']|javascript:|<script(?![^>]*\bsrc=)(?![^>]*type=\"application/(?:ld\+)?json\")"
)


def policy_of(header: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (directive.split() for directive in header.split("; "))}


@pytest.mark.once
@pytest.mark.parametrize(
    "template", sorted((ROOT / "templates").rglob("*.html")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_template_holds_a_script_or_a_style_of_its_own(template: Path) -> None:
    assert INLINE.findall(template.read_text(encoding="utf-8")) == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("markup", "found"),
    [
        ('<p style="color: red">', True),
        ("<style>p {}</style>", True),
        ("<script>alert(1)</script>", True),
        ('<script type="module">', True),
        ('<a onclick="go()">', True),
        ('<a href="javascript:go()">', True),
        ('<script type="module" src="/static/js/comments.js"></script>', False),
        ('<script type="application/ld+json">{{ linked_data }}</script>', False),
        ('<link rel="stylesheet" href="/static/css/site.css">', False),
    ],
)
def test_what_stands_inline_is_told_from_what_does_not(markup: str, found: bool) -> None:
    assert bool(INLINE.search(markup)) is found


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/", "/nowhere/", "/sign-in/", "/mine/", "/feed/", "/api/v1/articles/", "/sitemap.xml"]
)
def test_every_answer_has_the_policies(client: Client, path: str) -> None:
    headers = client.get(path).headers

    policy = policy_of(headers["Content-Security-Policy"])
    assert policy["default-src"] == policy["object-src"] == policy["base-uri"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == ["'self'"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Permissions-Policy"].startswith("camera=()")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


@pytest.mark.django_db
def test_the_admin_may_make_functions_and_run_nothing_inline(client: Client) -> None:
    policy = policy_of(client.get("/admin/login/").headers["Content-Security-Policy"])

    assert policy["script-src"] == ["'self'", "'unsafe-eval'"]
    assert policy["style-src"] == ["'self'"]
    assert policy["default-src"] == ["'none'"]


@pytest.mark.django_db
def test_an_answer_to_a_mistake_of_ours_has_them_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("blog_site.articles.views.render", fail)
    client.raise_request_exception = False

    answer = client.get("/archive/")

    assert answer.status_code == 500
    assert policy_of(answer.headers["Content-Security-Policy"])["script-src"] == ["'self'"]


@pytest.mark.django_db
def test_a_refusal_for_a_forged_form_has_them_too() -> None:
    answer = Client(enforce_csrf_checks=True).post("/sign-in/", {"username": "writer", "password": "x"})

    assert answer.status_code == 403
    assert "Content-Security-Policy" in answer.headers


@pytest.mark.once
def test_pictures_come_from_where_the_settings_say(settings) -> None:
    settings.IMAGE_SOURCES = ["https://img.example"]

    answer = tell_policies(lambda request: HttpResponse())(RequestFactory().get("/"))

    assert policy_of(answer.headers["Content-Security-Policy"])["img-src"] == [
        "'self'",
        "https://img.example",
    ]


@pytest.mark.once
def test_a_view_that_has_said_what_its_answer_may_do_is_left_alone() -> None:
    stricter = HttpResponse(headers={"Content-Security-Policy": "sandbox"})

    answer = tell_policies(lambda request: stricter)(RequestFactory().get("/"))

    assert answer.headers["Content-Security-Policy"] == "sandbox"


@pytest.mark.once
def test_behind_tls_nothing_is_fetched_in_the_clear() -> None:
    assert "upgrade-insecure-requests" in write_policy(PAGES, tls=True)
    assert "upgrade-insecure-requests" not in write_policy(PAGES, tls=False)


@pytest.mark.django_db
def test_no_script_can_read_the_session_and_no_other_site_can_send_it(client: Client) -> None:
    make_user("writer")
    client.get("/sign-in/")  # its form sets the cookie against forged ones
    client.post("/sign-in/", {"username": "writer", "password": PASSWORD})
    client.post("/i18n/setlang/", {"language": "en"})

    assert client.cookies["sessionid"]["httponly"]
    assert client.cookies["django_language"]["httponly"]
    assert not client.cookies["csrftoken"]["httponly"], "scripts of ours send it back in a header"
    assert {cookie["samesite"] for cookie in client.cookies.values()} == {"Lax"}


@pytest.mark.once
@pytest.mark.parametrize("page", ERROR_PAGES, ids=lambda path: path.name)
def test_the_gateways_policy_knows_the_style_of_its_own_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    configuration = (ROOT / "infra" / "nginx" / "gateway.conf").read_text(encoding="utf-8")

    assert f"style-src 'sha256-{digest}'" in configuration
    assert not INLINE.search(text.replace("<style", ""))
