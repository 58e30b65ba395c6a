"""What is done too often is refused with 429, whoever does it and wherever; nothing that was typed is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import translation

from blog_site.allowances import OTHER, PURPOSES, say_when
from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from blog_site.limits import Rate
from blog_site.users.models import User
from tests.blog import make_article, make_comment, make_user

LONG = "这家店的豆腐脑，咸的比甜的好吃。\n每天早上七点就要去排队，晚了就没有了。<b>真的</b>"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def allowances(settings) -> Iterator[dict[str, list[Rate]]]:
    """Two of everything an hour, of one account; three times as many of one address."""
    cache.clear()
    settings.ALLOWANCES = {purpose: [Rate(uses=2, seconds=3600)] for purpose in settings.ALLOWANCES}
    settings.ALLOWANCE_ADDRESS_FACTOR = 3
    yield settings.ALLOWANCES
    cache.clear()


@pytest.fixture
def article() -> Article:
    return make_article()


def signed_in(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.filter(username=name).first() or make_user(name))
    return client


def post(client: Client, article: Article, text: str = "好吃", **extra: str):
    return client.post(f"{article.get_absolute_url()}comments/", {"text": text}, **extra)


def test_a_comment_too_many_is_refused_and_its_text_can_be_sent_again(article: Article, allowances) -> None:
    reader = signed_in("reader")
    for number in range(2):
        assert post(reader, article, f"好吃 {number}").status_code == 302

    refused = post(reader, article, LONG)

    page = refused.content.decode()
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 3600
    assert refused["Cache-Control"] == "no-store"
    assert f'action="{article.get_absolute_url()}comments/"' in page
    assert "&lt;b&gt;真的&lt;/b&gt;</textarea>" in page
    assert Comment.objects.count() == 2

    allowances["comments"] = []
    kept = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert kept is not None
    assert post(reader, article, LONG).status_code == 302


def test_a_short_comment_is_kept_too(article: Article) -> None:
    reader = signed_in("reader")
    for _ in range(2):
        post(reader, article)

    assert '<input type="hidden" name="text" value="好吃">' in post(reader, article).content.decode()


def test_one_account_does_not_use_up_what_another_has(article: Article) -> None:
    for _ in range(4):
        post(signed_in("reader"), article)

    assert post(signed_in("another"), article).status_code == 302


def test_all_accounts_of_an_address_share_what_the_address_has(article: Article) -> None:
    answers = [post(signed_in(f"reader{number // 2}"), article).status_code for number in range(8)]

    assert answers == [302] * 6 + [429] * 2
    assert post(signed_in("reader9"), article, REMOTE_ADDR="203.0.113.9").status_code == 302


def test_behind_the_gateway_it_is_the_readers_address_that_counts(article: Article, settings) -> None:
    settings.BEHIND_GATEWAY = True

    answers = [
        Client(headers={"X-Real-IP": f"203.0.113.{number}"}).post("/sign-up/", {}).status_code
        for number in (1, 1, 1, 2)
    ]

    assert answers == [200, 200, 429, 200]


def test_reading_is_not_counted(article: Article) -> None:
    reader = signed_in("reader")

    assert {reader.get(article.get_absolute_url()).status_code for _ in range(5)} == {200}


def test_signing_up_too_often_is_refused_and_no_password_comes_back(client: Client) -> None:
    form = {"username": "new", "password1": "a-secret-of-mine", "password2": "a-secret-of-mine-2"}
    for _ in range(2):
        assert client.post("/sign-up/", form).status_code == 200

    refused = client.post("/sign-up/?next=/mine/", form)

    assert refused.status_code == 429
    assert "a-secret-of-mine" not in refused.content.decode()
    assert 'href="/sign-up/?next=/mine/"' in refused.content.decode()


def test_the_present_password_cannot_be_guessed_by_changing_it() -> None:
    reader = signed_in("reader")

    answers = [
        reader.post("/me/password/", {"old_password": f"guess {number}"}).status_code for number in range(3)
    ]

    assert answers == [200, 200, 429]


def test_a_script_is_told_in_json(article: Article) -> None:
    reader = signed_in("reader")
    for _ in range(2):
        post(reader, article)

    refused = post(reader, article, HTTP_ACCEPT="application/json")

    assert refused.status_code == 429
    assert refused["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "throttled"
    assert "分钟" in refused.json()["detail"]
    assert int(refused["Retry-After"]) > 0


def test_what_is_done_through_the_api_counts_with_what_is_done_on_pages(article: Article) -> None:
    reader = signed_in("reader")
    address = f"/api/v1{article.get_absolute_url()}comments/"
    post(reader, article)
    assert reader.post(address, {"text": "好吃"}, content_type="application/json").status_code == 201

    refused = reader.post(address, {"text": "好吃"}, content_type="application/json")

    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    assert post(reader, article).status_code == 429


def test_likes_and_reports_have_limits_of_their_own(article: Article) -> None:
    reader = signed_in("reader")
    comment = make_comment(article, author=make_user("another"))
    address = f"/api/v1/comments/{comment.pk}"

    likes = [reader.put(f"{address}/like/").status_code for _ in range(3)]
    report = reader.post(f"{address}/report/", {"reason": "spam"}, content_type="application/json")

    assert (likes, report.status_code) == ([200, 200, 429], 201)


def test_a_forged_form_uses_up_nothing(article: Article) -> None:
    reader = Client(enforce_csrf_checks=True)
    reader.force_login(make_user("reader"))
    for _ in range(5):
        assert post(reader, article).status_code == 403

    reader.handler.enforce_csrf_checks = False
    assert post(reader, article).status_code == 302


def test_what_has_no_purpose_of_its_own_is_limited_as_well() -> None:
    reader = signed_in("reader")
    answers = [reader.post("/me/", {"display_name": "夏", "bio": ""}).status_code for _ in range(3)]

    assert answers == [302, 302, 429]


def test_every_purpose_has_rates_and_an_address(settings) -> None:
    assert {*PURPOSES.values(), OTHER, "sign_ins"} <= set(settings.ALLOWANCES)
    assert set(PURPOSES) - set(named_addresses()) == set()


def named_addresses(resolver: URLResolver | None = None, namespaces: tuple[str, ...] = ()) -> Iterator[str]:
    for pattern in (resolver or get_resolver()).url_patterns:
        if isinstance(pattern, URLPattern):
            yield ":".join([*namespaces, pattern.name or ""])
        else:
            inner = (pattern.namespace,) if pattern.namespace else ()
            yield from named_addresses(pattern, (*namespaces, *inner))


@pytest.mark.parametrize(
    ("seconds", "chinese", "english"),
    [
        (1, "请等 1 秒再试。", "Please wait 1 second and try again."),
        (59, "请等 59 秒再试。", "Please wait 59 seconds and try again."),
        (61, "请等 2 分钟再试。", "Please wait 2 minutes and try again."),
        (3600, "请等 60 分钟再试。", "Please wait 60 minutes and try again."),
        (86_400, "请等 24 小时再试。", "Please wait 24 hours and try again."),
    ],
)
def test_when_to_come_again_is_said_in_words(seconds: int, chinese: str, english: str) -> None:
    with translation.override("zh-hans"):
        assert say_when(seconds) == chinese
    with translation.override("en"):
        assert say_when(seconds) == english
