"""What writers are shown of their articles, and how many queries that takes."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from blog_site.articles.models import Article, ArticleViews
from blog_site.comments.models import BlockedWord, Comment
from blog_site.comments.services import rate_constructiveness, report_comment
from blog_site.dashboard.criticism import find_criticism
from blog_site.dashboard.received import received_comments, today
from blog_site.dashboard.services import read_dashboard
from blog_site.labels.models import Label, Sample
from blog_site.labels.services import correct_labels
from blog_site.users.models import User
from tests.blog import make_article, make_comment, make_prediction, make_user

pytestmark = pytest.mark.django_db
ZONE = ZoneInfo("Asia/Shanghai")
CRITICISM = "火候没有写清楚，新手照做会糊锅，建议补上每一步要多少时间，因为差一分钟味道就不一样。"


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    cache.clear()


@pytest.fixture
def writer() -> User:
    return make_user("writer", display_name="林夏")


def criticise(
    article: Article, text: str = CRITICISM, *, label: str = "negative", **fields: object
) -> Comment:
    comment = make_comment(article, text, minutes_ago=fields.pop("minutes_ago", 0))  # type: ignore[arg-type]
    fields.setdefault("constructiveness", rate_constructiveness(text=text, negative=0.9))
    Comment.objects.filter(pk=comment.pk).update(**fields)
    make_prediction(comment, label)
    comment.refresh_from_db()
    return comment


def at(comment: Comment, moment: datetime) -> None:
    Comment.objects.filter(pk=comment.pk).update(created_at=moment)


def test_figures_are_of_readers_and_of_the_days_asked_for(writer: User) -> None:
    article, other = make_article(author=writer), make_article("别人的", author=make_user("other"))
    for days_ago, views in ((0, 5), (6, 2), (7, 10), (14, 99)):
        ArticleViews.objects.create(article=article, day=today() - timedelta(days=days_ago), views=views)
    ArticleViews.objects.create(article=other, day=today(), views=50)
    make_prediction(make_comment(article), "positive")
    criticise(article)
    make_comment(article, "还没看过")
    make_comment(article, "我自己的", author=writer)
    criticise(article, status="hidden")
    criticise(other)

    figures = read_dashboard(writer, days=7, order="comments")

    assert (figures.now.views, figures.before.views) == (7, 10)
    echo = figures.now.echo
    assert (echo.comments, echo.positive, echo.negative, echo.waiting) == (3, 1, 1, 1)
    assert figures.now.negative_share == 0.5
    assert [(row.article, row.figures.views) for row in figures.articles] == [(article, 7)]
    assert figures.days[-1].echo.comments == 3


def test_days_begin_at_midnight_in_shanghai(writer: User) -> None:
    article = make_article(author=writer)
    midnight = datetime.combine(today(), datetime.min.time(), tzinfo=ZONE)
    at(make_comment(article, "昨天的"), midnight - timedelta(seconds=1))
    at(make_comment(article, "今天的"), midnight)
    at(make_comment(article, "七天前的"), midnight - timedelta(days=6, seconds=1))

    figures = read_dashboard(writer, days=7, order="comments")

    assert [day.echo.comments for day in figures.days] == [0, 0, 0, 0, 0, 1, 1]
    assert figures.before.echo.comments == 1


def test_who_reads_better_than_the_model_is_believed_and_the_lexicon_is_not(writer: User) -> None:
    article = make_article(author=writer)
    corrected, by_lexicon, unscored = (criticise(article, f"{CRITICISM}{number}") for number in range(3))
    correct_labels(comments=[corrected], sentiment="neutral", moderator=make_user("moderator", is_staff=True))
    unscored.predictions.all().delete()
    for comment in (by_lexicon, unscored):
        Sample.objects.create(
            key=f"comment:{comment.pk}", comment=comment, text=comment.text, text_digest=comment.text_digest,
            label="positive", source="lexicon", site="food", split="train", changed_at=comment.created_at,
        )  # fmt: skip

    sentiments = received_comments().from_readers_of(writer).with_sentiment().values_list("pk", "sentiment")

    assert dict(sentiments) == {corrected.pk: "neutral", by_lexicon.pk: "negative", unscored.pk: "positive"}


def test_criticism_worth_answering_has_something_in_it_attacks_nobody_and_waits(writer: User) -> None:
    article = make_article(author=writer)
    worth = criticise(article, minutes_ago=9)
    newer = criticise(article, f"{CRITICISM}还有，图太小。", minutes_ago=2)
    criticise(article, "难吃")
    criticise(article, f"{CRITICISM}真棒", label="positive")
    criticise(article, f"{CRITICISM}你这个脑 残。")
    BlockedWord.objects.create(word="加微信")
    criticise(article, f"{CRITICISM}加 微信聊")
    report_comment(
        comment=criticise(article, f"{CRITICISM}被举报"), reporter=make_user("other"), reason="abuse", note=""
    )
    criticise(article, f"{CRITICISM}待审", status="pending")
    rude = criticise(article, f"{CRITICISM}语言模型说伤人")
    Label.objects.create(
        comment=rude,
        text_digest=rude.text_digest,
        source="llm",
        sentiment="negative",
        toxicity=0.8,
        confidence=0.9,
    )
    criticise(make_article("关了评论", author=writer, comments_open=False))
    criticise(make_article("别人的", author=make_user("another")))
    answered = criticise(article, f"{CRITICISM}答过了")
    Comment.objects.filter(pk=make_comment(article, "补上了", author=writer).pk).update(
        parent=answered, depth=1
    )

    assert find_criticism(writer).comments == [newer, worth]


def test_criticism_comes_a_page_at_a_time_and_each_of_it_once(writer: User) -> None:
    article = make_article(author=writer)
    same_moment = datetime(2026, 5, 1, tzinfo=ZONE)
    written = [criticise(article, f"{CRITICISM}{number}") for number in range(20)]
    Comment.objects.update(created_at=same_moment)

    seen, after, pages = [], "", 0
    while pages < 5:
        page = find_criticism(writer, after=after)
        seen += [comment.pk for comment in page.comments]
        pages += 1
        if page.after is None:
            break
        after = str(page.after)

    assert (pages, seen) == (3, [comment.pk for comment in reversed(written)])
    assert find_criticism(writer, after="nonsense").comments == find_criticism(writer).comments


def test_the_number_of_queries_grows_neither_with_articles_nor_with_comments(
    writer: User, client: Client
) -> None:
    client.force_login(writer)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get("/dashboard/?days=90").status_code == 200
        return len(captured)

    criticise(make_article(author=writer))
    queries()
    few = queries()
    for number in range(12):
        article = make_article(f"第{number}篇", author=writer)
        ArticleViews.objects.create(article=article, day=today(), views=number)
        for round_ in range(3):
            criticise(article, f"{CRITICISM}{number}-{round_}")

    assert queries() == few <= 14


def test_the_page_says_figures_to_eyes_and_to_readers_aloud(writer: User, client: Client) -> None:
    client.force_login(writer)
    assert client.get("/dashboard/").status_code == 200, "before anything came"
    article = make_article("番茄炒蛋", author=writer)
    ArticleViews.objects.create(article=article, day=today(), views=41)
    comment = criticise(article, f"<script>{CRITICISM}")

    page = client.get("/dashboard/?days=7&order=negative").content.decode()

    assert "<script>火候" not in page
    assert f"{article.get_absolute_url()}?reply={comment.pk}#comment-form" in page
    assert page.count('role="img"') == 3
    assert page.count("<desc") == 3
    assert '<th scope="row"><time datetime="' in page
    assert "style=" not in page
    assert client.get("/dashboard/?days=8&order=x&after=x").status_code == 200


def test_who_has_published_nothing_is_told_what_will_be_here(writer: User, client: Client) -> None:
    client.force_login(writer)
    make_article(author=writer, draft=True)
    assert "你还没有发布过文章" in client.get("/dashboard/").content.decode()

    make_article("第一篇", author=writer)
    assert "你还没有发布过文章" not in client.get("/dashboard/").content.decode()


def test_a_stranger_is_asked_to_sign_in(client: Client) -> None:
    assert client.get("/dashboard/")["Location"] == "/sign-in/?next=/dashboard/"
