"""What waits for a moderator, or was taken down, leaves no trace anywhere for anybody else: every address is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.comments import services
from blog_site.comments.models import Comment, Like, Report
from blog_site.comments.threads import Reader, page_of
from blog_site.users.models import User
from tests.comments.rows import make_article, make_comment, make_user
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label

pytestmark = pytest.mark.django_db

# Numbers that stand nowhere else, so that they can be told from what a page says.
FIRST_ID = 10**9
_IDS = re.compile(r"10000000\d\d")
SECRET, NAME = "谁也不该看见的字", "不该露面的访客"
UNSEEN = ("pending", "hidden", "spam")
# What differs between two answers without anything having happened.
_PASSING = re.compile(
    r'((?:name="(?:csrfmiddlewaretoken|stamp|key)" value|name="csrf-token" content|nonce|data-cursor)='
    r'|"cursor": ?)"[^"]*"'
)
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


@pytest.fixture
def article() -> Article:
    article = make_article(slug="soy-milk", published_at=days_ago(4))
    Article.objects.update(updated_at=days_ago(4))
    article.category.guests_may_comment = True
    article.category.save()
    visible = make_comment("大家都看得见", article=article, created_at=days_ago(3))
    make_prediction(visible)
    return article


@pytest.fixture
def people(article: Article) -> dict[str, User | None]:
    return {"stranger": None, "reader": make_user("reader"), "author": article.author}


def days_ago(days: int):
    return timezone.now() - timezone.timedelta(days=days)


def hide_some(article: Article) -> list[Comment]:
    """Comments of every kind that others must not see, above and below, of a member and of a guest."""
    visible, writer = article.comments.get(), make_user("writer")
    made = []
    for status in UNSEEN:
        for parent in (None, visible):
            for who in ({"author": writer}, {"author": None, "guest_name": NAME}):
                comment = Comment.objects.create(
                    pk=FIRST_ID + 1 + len(made),
                    article=article,
                    parent=parent,
                    text=SECRET,
                    text_digest="0" * 64,
                    status=status,
                    created_at=days_ago(2),
                    **who,
                )
                make_prediction(comment, label="negative")
                make_label(comment)
                made.append(comment)
    return made


def routes(patterns=None, prefix: str = "/") -> Iterator[str]:
    """Every route of the site and the API that is spelled out."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if not isinstance(pattern.pattern, RoutePattern):
            continue
        route = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern) and not route.startswith("/admin/"):
            yield route


def addresses(article: Article, comment_id: int) -> list[str]:
    values = {"slug": article.slug, "username": article.author.username, "section": "articles"}
    found = [
        _PARAMETER.sub(lambda name: str(values.get(name[1], comment_id)), route)
        for route in sorted(set(routes()))
    ]
    page, listed, visible = (
        article.get_absolute_url(),
        f"/api/v1/articles/{article.slug}/comments/",
        article.comments.first(),
    )
    assert page in found
    assert listed in found
    for order in ("newest", "oldest", "constructive"):
        found += [f"{page}?order={order}", f"{listed}?order={order}", f"{listed}?parent=root&order={order}"]
    for name in ("comment", "thread", "reply"):
        found += [f"{page}?{name}={comment_id}", f"{page}?{name}={visible.pk}"]
    found += [f"{listed}?parent={comment_id}", f"{listed}?parent={visible.pk}"]
    found += [f"{page}comments/changes/?since=1", "/admin/", "/admin/comments/comment/"]
    found += [f"/search/?q={SECRET}", f"/api/v1/search/?q={SECRET}", f"/search/?q={NAME}"]
    return found


def read_all(
    article: Article, user: User | None, comment_id: int, *, about_it: bool = False
) -> dict[str, tuple[int, str]]:
    """What somebody gets at every address, or at those that name a comment."""
    cache.clear()  # what is limited by the minute begins anew
    client = Client()
    if user is not None:
        client.force_login(user)
    read = {}
    for address in addresses(article, comment_id):
        if about_it and str(comment_id) not in address:
            continue
        answer = client.get(address)
        assert answer.status_code < 500, address
        content = b"".join(answer) if answer.streaming else answer.content
        text = _PASSING.sub(r'\1""', content.decode(errors="replace").replace(r"\"", '"'))
        read[_IDS.sub("ID", address)] = (answer.status_code, _IDS.sub("ID", text))
    return read


def test_nobody_else_finds_a_trace_of_what_waits_or_was_taken_down(
    article: Article, people: dict[str, User | None]
) -> None:
    before = {name: read_all(article, user, FIRST_ID) for name, user in people.items()}
    assert any("大家都看得见" in text for _status, text in before["stranger"].values())
    unseen = hide_some(article)

    for name, user in people.items():
        for comment in unseen[:: len(unseen) // len(UNSEEN)]:  # one of each kind, by its number
            after = read_all(article, user, comment.pk, about_it=comment != unseen[0])
            for address, answer in after.items():
                if SECRET not in address:  # a search says what was searched for
                    assert SECRET not in answer[1], f"{address} shows it to the {name}"
                assert answer == before[name][address], f"{address} tells the {name} that something is there"


def test_its_author_and_moderators_see_what_waits(article: Article) -> None:
    hide_some(article)
    for user in (User.objects.get(username="writer"), make_user(is_staff=True, is_superuser=True)):
        client = Client()
        client.force_login(user)
        page = client.get(article.get_absolute_url()).content.decode()
        assert page.count(SECRET) == (4 if user.is_staff else 2)
        assert 'data-status="pending"' in page


def test_a_moderators_page_is_not_what_others_see_afterwards(article: Article) -> None:
    hide_some(article)
    moderator, stranger = Client(), Client()
    moderator.force_login(make_user(is_staff=True, is_superuser=True))
    for client, sees in ((moderator, True), (stranger, False), (moderator, True)):
        assert (SECRET in client.get(article.get_absolute_url()).content.decode()) is sees


@pytest.mark.parametrize("status", UNSEEN)
def test_nobody_does_anything_to_what_they_cannot_see(article: Article, status: str) -> None:
    hidden = make_comment(SECRET, article=article, status=status)
    client = Client()
    client.force_login(make_user("reader"))
    for act in ("like", "report", "edit", "delete"):
        assert (
            client.post(f"/comments/{hidden.pk}/{act}/", {"reason": "spam", "text": "x"}).status_code == 404
        )
    assert client.put(f"/api/v1/comments/{hidden.pk}/like/").status_code == 404
    for method, data in (("patch", {"text": "x"}), ("delete", {})):
        call = getattr(client, method)
        assert (
            call(f"/api/v1/comments/{hidden.pk}/", data, content_type="application/json").status_code == 404
        )
    report = client.post(
        f"/api/v1/comments/{hidden.pk}/report/", {"reason": "spam"}, content_type="application/json"
    )
    assert report.status_code == 404
    reply = client.post(f"{article.get_absolute_url()}comments/", {"text": "回", "parent": hidden.pk})
    assert reply.status_code == 400
    assert SECRET not in reply.content.decode()
    assert not Like.objects.exists()
    assert not Report.objects.exists()
    hidden.refresh_from_db()
    assert (hidden.text, hidden.status) == (SECRET, status)


def test_what_is_taken_down_disappears_from_what_was_read_before(article: Article) -> None:
    comment = make_comment(SECRET, article=article)
    reader = Reader(AnonymousUser())
    assert len(page_of(article, order="newest", reader=reader).nodes) == 2
    client = Client()
    address = article.get_absolute_url()
    assert SECRET in client.get(address).content.decode()
    services.decide(comments=[comment], action="hide", by=make_user())
    assert SECRET not in client.get(address).content.decode()
    assert SECRET not in client.get(f"{address}?comment={comment.pk}").content.decode()
