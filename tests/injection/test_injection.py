"""What readers, writers and machines wrote is shown as text, on every page, in every form that the blog answers in."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from django.http import HttpResponseBase
from django.test import Client

from blog_site.articles.models import Article
from blog_site.articles.services import render_markdown
from blog_site.users.models import User

from .payloads import BUNCHES, PAYLOADS, find_harm
from .planting import plant
from .routes import addresses_with_payloads, admin_addresses, readable_addresses

ATOM = "{http://www.w3.org/2005/Atom}"

pytestmark = pytest.mark.once  # no database escapes anything


# -- The looking itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        "<script>stolen(1)</script>",
        '<script src="//thief.example/x.js"></script>',
        "<p onclick=x()>",
        "<svg/onload=x()>",
        "<a href=' java\tscript:x()'>",
        "<a href='data:text/html,x'>",
        "<svg><a xlink:href='javascript:x()'>",
        "<form action='//thief.example/'>",
        "<button formaction='javascript:x()'>",
        "<iframe src='/'></iframe>",
        "<base href='/x/'>",
        "<style>p {}</style>",
        "<p style='position: fixed'>",
        "<meta http-equiv=refresh content='0; url=/'>",
        "<template><img src=x onerror=x()></template>",
        "<p x-data=\"{name: 'stolen(1)'}\">",
        "<stolen(1)>",
    ],
)
def test_harm_is_found(page: str) -> None:
    assert find_harm(f"<!doctype html><title>x</title>{page}") != []


@pytest.mark.parametrize(
    "page",
    [
        "<p>&lt;script&gt;stolen(1)&lt;/script&gt;</p>",
        '<a href="/articles/x/">x</a>',
        '<a href="https://example.com/?u=javascript:x">x</a>',
        '<a href="mailto:a@b.example">x</a>',
        '<script type="module" src="/static/js/comments.js"></script>',
        '<script type="application/ld+json">{"headline": "\\u003c/script>"}</script>',
        '<input value="&quot; onfocus=stolen(1)">',
        '<form action="/search/"></form><form action="http://testserver/x/"></form>',
    ],
)
def test_what_is_harmless_is_left_alone(page: str) -> None:
    assert find_harm(f"<!doctype html><title>x</title>{page}") == []


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_makes_nothing_of_it(payload: str) -> None:
    for text in (
        payload,
        f"# {payload}",
        f"- {payload}",
        f"| {payload} |\n|---|\n| {payload} |",
        f"**{payload}**",
    ):
        assert find_harm(render_markdown(text)) == []


# -- Every page --------------------------------------------------------------------------------------------------------


@pytest.fixture
def article(db: None) -> Article:
    return plant()


def signed_in(username: str) -> Client:
    client = Client()
    if username:
        client.force_login(User.objects.get(username=username))
    return client


def harm_of(address: str, answer: HttpResponseBase) -> list[str]:
    """What is wrong with an answer, in whichever form it came."""
    kind, _, _ = answer.headers.get("Content-Type", "").partition(";")
    if answer.status_code >= 500 and answer.status_code != 503:  # the model is away in these tests
        return [f"{address}: {answer.status_code}"]
    if 300 <= answer.status_code < 400:
        return (
            []
            if _stays_here(answer.headers["Location"])
            else [f"{address} goes to {answer.headers['Location']}"]
        )
    if answer.headers.get("X-Content-Type-Options") != "nosniff":
        return [f"{address}: a browser may guess what it is"]
    if kind == "text/html":
        return [f"{address}: {harm}" for harm in find_harm(text_of(answer), styled="/admin/" in address)]
    if kind.endswith("+xml") or kind == "application/xml":
        return [f"{address}: {harm}" for harm in _harm_of_xml(text_of(answer))]
    if kind.endswith("json"):
        json.loads(text_of(answer))
    return []


def text_of(answer: HttpResponseBase) -> str:
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return content.decode("utf-8", "replace")


def _stays_here(location: str) -> bool:
    parts = urlsplit(location)
    return parts.scheme in ("", "http") and parts.netloc in ("", "testserver")


def _harm_of_xml(document: str) -> list[str]:
    root = ElementTree.fromstring(document)
    written = [node.text or "" for node in root.iter() if node.get("type") == "html"]
    links = [
        node.get("href", "") or node.text or "" for node in root.iter() if node.tag in (f"{ATOM}link", "loc")
    ]
    return [
        *(harm for text in written for harm in find_harm(text)),
        *(f"the address {link!r}" for link in links if not link.startswith("http://")),
        *(f"<{node.tag}>" for node in root.iter() if "script" in node.tag or node.get("onload")),
    ]


def test_no_page_runs_what_was_written(article: Article) -> None:
    wrong: list[str] = []
    seen: list[str] = []

    for username in ("", "writer", "admin"):
        client = signed_in(username)
        for _name, address in readable_addresses():
            answer = client.get(address)
            wrong += harm_of(f"{username} {address}", answer)
            seen.append("" if answer.streaming else text_of(answer))
        wrong += [
            harm for address in addresses_with_payloads() for harm in harm_of(address, client.get(address))
        ]

    assert wrong == []
    everything = html.unescape("\n".join(seen))
    assert [payload for payload in PAYLOADS if payload not in everything] == [], (
        "planted, and nowhere to be seen"
    )


def test_no_page_of_the_admin_runs_what_was_written(article: Article) -> None:
    client = signed_in("admin")
    addresses = dict.fromkeys(address for name, address in admin_addresses())

    wrong = [harm for address in addresses for harm in harm_of(address, client.get(address))]

    assert wrong == []


FORMS = {
    "/sign-in/": {"username": "…", "password": "x", "next": "…"},
    "/sign-up/": {"username": "…", "display_name": "…", "password1": "x", "password2": "y", "next": "…"},
    "/me/": {"display_name": "…" * 3, "bio": "…" * 20},
    "/me/password/": {"old_password": "…", "new_password1": "x", "new_password2": "y"},
    "/write/": {"title": "…", "summary": "…", "body_markdown": "…", "tag_names": "…", "action": "preview"},
    "/i18n/setlang/": {"language": "en", "next": "…"},
    "/admin/login/": {"username": "…", "password": "x", "next": "…"},
    "/articles/nowhere/comments/": {"text": "…"},
}


def test_no_form_runs_what_it_gives_back(article: Article, settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.AXES_FAILURE_LIMIT = 1000
    settings.COMMENT_MAX_CHARACTERS = 5
    forms = FORMS | {f"{Article.objects.latest('pk').get_absolute_url()}comments/": {"text": "…"}}
    wrong: list[str] = []

    for username in ("", "writer"):
        client = signed_in(username)
        for address, form in forms.items():
            for bunch in BUNCHES:
                filled_in = {name: value.replace("…", bunch) for name, value in form.items()}
                wrong += harm_of(address, client.post(address, filled_in))

    assert wrong == []


def test_machines_are_told_exactly_what_was_written(article: Article) -> None:
    page = Client().get(article.get_absolute_url()).content.decode()

    data = re.search(r'<script type="application/ld\+json">(.*?)</script>', page, re.DOTALL)
    title = re.search(r'<meta property="og:title" content="(.*?)">', page, re.DOTALL)
    assert data is not None
    assert title is not None
    assert json.loads(data[1])["headline"] == html.unescape(title[1]) == article.title
