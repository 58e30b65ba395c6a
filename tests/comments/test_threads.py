from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from blog_site.articles import hot
from blog_site.articles.models import Article
from blog_site.comments import services
from blog_site.comments.models import Comment
from blog_site.comments.threads import ORDERS, BadCursor, Node, Page, Reader, page_of
from tests.comments.rows import make_article, make_comment, make_reply, make_user
from tests.comments.test_models import make_prediction

pytestmark = pytest.mark.django_db
STRANGER = Reader(AnonymousUser())


def texts(page: Page) -> list[str]:
    return [comment.text for comment in page.comments()]


def walk(under: Article | Comment, order: str, size: int) -> list[int]:
    """The ids on all pages, from the first to the last."""
    found: list[int] = []
    after = ""
    while True:
        page = page_of(under, order=order, after=after, reader=STRANGER, size=size)
        found += [comment.pk for comment in page.comments()]
        after = page.next_after
        if not after:
            return found


def fill(article: Article, parent: Comment | None = None) -> list[Comment]:
    """Seven comments, some of the same moment and the same worth."""
    author, now = make_user(), timezone.now()
    return [
        make_comment(
            f"第{number}条",
            article=article,
            author=author,
            parent=parent,
            created_at=now - timedelta(minutes=number // 3),
            constructiveness=[0.1234, 0.9, 0.1234, 0.0, 0.1234, 1.0, 0.0][number],
        )
        for number in range(7)
    ]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("order", list(ORDERS))
def test_pages_give_every_comment_once_in_order(order: str, nested: bool) -> None:
    article = make_article()
    parent = make_comment(article=article) if nested else None
    comments = fill(article, parent)
    sort = ORDERS[order]
    expected = sorted(
        comments, key=lambda comment: (getattr(comment, sort.column), comment.pk), reverse=sort.descending
    )

    assert walk(parent or article, order, size=2) == [comment.pk for comment in expected]


def test_what_is_posted_meanwhile_moves_no_page() -> None:
    article = make_article()
    old = [make_comment(f"旧{n}", article=article) for n in range(4)]
    first = page_of(article, order="newest", reader=STRANGER, size=2)
    make_comment("新的", article=article)
    second = page_of(article, order="newest", after=first.next_after, reader=STRANGER, size=2)
    assert [c.pk for c in (*first.comments(), *second.comments())] == [c.pk for c in reversed(old)]


@pytest.mark.parametrize(
    "key", ["x", "1_", "_1", "1_-1", "nan_1", "9" * 61, "1_²", "99999999999999999999_1", "2_1"]
)
@pytest.mark.parametrize("order", ["newest", "constructive"])
def test_a_key_that_no_page_gave_is_refused(order: str, key: str) -> None:
    if (order, key) == ("newest", "2_1"):
        key = "2"  # a moment long ago is a place in time, though no worth
    with pytest.raises(BadCursor, match="is no place in the order"):
        page_of(make_article(), order=order, after=key, reader=STRANGER)


def test_the_first_replies_stand_below_each_comment_and_the_rest_is_a_link() -> None:
    article = make_article()
    long, short = make_comment("长", article=article), make_comment("短", article=article)
    for number in range(5):
        make_reply(long, f"长{number}")
    reply = make_reply(short, "短0")
    below = [make_reply(reply, f"短0{number}") for number in range(3)]
    make_reply(below[0], "短000")

    nodes = page_of(article, order="oldest", reader=STRANGER).nodes

    assert [[r.comment.text for r in node.replies] for node in nodes] == [["长0", "长1", "长2"], ["短0"]]
    assert [(node.has_more, node.rest) for node in nodes] == [(True, 2), (False, 0)]
    (nested,) = nodes[1].replies
    assert [r.comment.text for r in nested.replies] == ["短00", "短01"]
    assert (nested.has_more, nested.rest) == (True, 1)
    assert [(r.replies, r.has_more, r.rest) for r in nested.replies] == [((), True, 1), ((), False, 0)]
    rest = page_of(long, order="oldest", after=nodes[0].after, reader=STRANGER)
    assert texts(rest) == ["长3", "长4"]


def test_the_queries_of_a_page_do_not_grow_with_its_comments() -> None:
    def count(article: Article, reader: Reader) -> int:
        with CaptureQueriesContext(connection) as queries:
            for node in page_of(article, order="newest", reader=reader).nodes:
                assert node.comment.byline
        return len(queries)

    few, many = make_article(), make_article()
    author = make_user()
    for article, number in ((few, 1), (many, 25)):
        for _ in range(number):
            comment = make_comment(article=article, author=make_user())
            make_prediction(comment)
            make_reply(make_reply(comment, author=author), author=author)
    reader = Reader(make_user())
    assert count(few, reader) == count(many, reader) == 4


# -- What stands in a thread without being read --


def shape(nodes: tuple[Node, ...]) -> list:
    return [("…" if node.is_placeholder else node.comment.text, shape(node.replies)) for node in nodes]


def seen(article: Article, reader: Reader = STRANGER) -> list:
    return shape(page_of(article, order="oldest", reader=reader).nodes)


def test_a_comment_that_is_taken_down_stands_for_its_visible_replies_alone() -> None:
    article, moderator = make_article(), make_user()
    top = make_comment("甲", article=article)
    middle = make_reply(top, "乙")
    leaf = make_reply(middle, "丙")

    services.decide(comments=[middle], action="hide", by=moderator)
    assert seen(article) == [("甲", [("…", [("丙", [])])])]
    services.decide(comments=[top], action="mark_spam", by=moderator)
    assert seen(article) == [("…", [("…", [("丙", [])])])]
    services.decide(comments=[leaf], action="hide", by=moderator)
    assert seen(article) == []
    services.decide(comments=[leaf], action="restore", by=moderator)
    assert seen(article) == [("…", [("…", [("丙", [])])])]
    services.decide(comments=[middle], action="restore", by=moderator)
    services.decide(comments=[top], action="restore", by=moderator)
    assert seen(article) == [("甲", [("乙", [("丙", [])])])]
    counts = Comment.objects.order_by("pk").values_list("reply_count", "shown_replies")
    assert list(counts) == [(1, 1), (1, 1), (0, 0)]


def test_counts_follow_whatever_is_decided_in_whatever_order() -> None:
    article, moderator = make_article(), make_user()
    top = make_comment(article=article)
    rows = [top, make_reply(top), make_reply(top)]
    rows += [make_reply(rows[1]), make_reply(rows[1])]
    rows += [make_reply(rows[3])]
    actions = ["hide", "restore", "mark_spam", "restore", "hide", "mark_spam"]
    for step in range(36):
        services.decide(comments=[rows[(step * 5 + step // 6) % 6]], action=actions[step % 6], by=moderator)
        now = {comment.pk: comment for comment in Comment.objects.all()}

        def is_shown(pk: int, now: dict[int, Comment] = now) -> bool:
            return now[pk].is_visible() or any(is_shown(c.pk) for c in now.values() if c.parent_id == pk)

        for pk, comment in now.items():
            below = [c for c in now.values() if c.parent_id == pk]
            assert comment.reply_count == sum(c.is_visible() for c in below)
            assert comment.shown_replies == sum(is_shown(c.pk) for c in below)


def test_a_waiting_reply_is_shown_to_its_author_and_moderators() -> None:
    article = make_article()
    top = make_comment("甲", article=article)
    author, moderator = make_user(), make_user(is_staff=True, is_superuser=True)
    waiting = make_reply(top, "看 https://a.example", author=author)

    assert waiting.is_pending()
    for reader in (STRANGER, Reader(make_user()), Reader(article.author)):
        assert seen(article, reader) == [("甲", [])]
    for reader in (Reader(author), Reader(moderator)):
        assert seen(article, reader) == [("甲", [("看 https://a.example", [])])]


def test_somebody_sees_their_own_waiting_reply_below_more_than_are_shown() -> None:
    article, author = make_article(), make_user()
    top = make_comment("甲", article=article)
    for number in range(3):
        make_reply(top, f"乙{number}")
    make_reply(top, "看 https://a.example", author=author)

    (node,) = page_of(article, order="oldest", reader=Reader(author)).nodes

    assert (len(node.replies), node.has_more, node.rest) == (3, True, 0)
    assert texts(page_of(top, order="oldest", after=node.after, reader=Reader(author))) == [
        "看 https://a.example"
    ]


# -- Pages of the blog --


def test_a_nested_comments_address_leads_to_it_below_what_it_answers(client) -> None:
    article = make_article()
    comment = top = make_comment("第0层", article=article)
    for depth in range(1, 7):
        comment = make_reply(comment, f"第{depth}层")

    page = client.get(comment.get_absolute_url())

    assert shape(page.context["section"].nodes) == [
        ("第2层", [("第3层", [("第4层", [("第5层", [("第6层", [])])])])])
    ]
    assert f'id="comment-{comment.pk}"' in page.content.decode()
    assert f"?thread={top.pk}" not in page.content.decode()


@pytest.mark.parametrize("signed_in", [False, True])
def test_an_articles_page_takes_at_most_twelve_queries_however_many_comments(
    client, signed_in: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = make_article(), make_article()
    author = make_user()
    for article, number in ((few, 5), (many, 300)):
        Comment.objects.bulk_create(
            Comment(article=article, author=author, text=f"{n}", text_digest=f"{n}") for n in range(number)
        )
        make_reply(make_reply(article.comments.last(), author=author), author=author)
    if signed_in:
        client.force_login(make_user())

    def count(article: Article) -> int:
        cache.clear()  # cold: what was read before is not remembered
        monkeypatch.setattr(hot, "_near_pages", hot.NearPages())
        with CaptureQueriesContext(connection) as queries:
            assert client.get(article.get_absolute_url()).status_code == 200
        return len(queries)

    count(few)
    assert count(few) == count(many) <= 12
