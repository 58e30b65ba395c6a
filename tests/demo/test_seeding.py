from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from blog_site.articles.models import Article, ArticleViews, Category
from blog_site.comments.models import Comment, Decision, Sentiment
from blog_site.comments.text import clean_comment_text
from blog_site.demo import seeding
from blog_site.demo.covers import draw_cover
from blog_site.demo.seeding import DEMO_PASSWORD, ContentError, SeedCounts, load_content, seed_demo
from blog_site.labels.models import Label, Sample, Source
from blog_site.moderation.queue import Tab, comments_in
from blog_site.users.models import User
from ml.bootstrap import read_comments
from ml.text import normalize_text, split_of
from tests.blog import PASSWORD, make_article, make_user

CATEGORIES = {"food", "books", "digital", "travel", "film"}


def column(slug: str = "food", **changes: object) -> dict[str, object]:
    article = {
        "slug": "soy-milk",
        "title": "豆浆",
        "summary": "一碗豆浆",
        "tags": ["早餐"],
        "author": "linxia",
        "days_ago": 3,
        "body": "热的**豆浆**。",
        "comments": [
            {"author": "xiaoman", "hours_after": 1.5, "text": "好喝"},
            {"author": "laowang", "hours_after": 2, "text": "太甜了"},
        ],
    }
    return {"category": {"slug": slug, "name": "美食", "description": "吃"}, "articles": [article | changes]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    users = [
        {"username": name, "display_name": name.title(), "bio": ""}
        for name in ("linxia", "xiaoman", "laowang")
    ]
    (tmp_path / "users.json").write_text(json.dumps({"users": users}), encoding="utf-8")
    (tmp_path / "food.json").write_text(json.dumps(column()), encoding="utf-8")
    return tmp_path


def test_the_content_that_ships_is_complete() -> None:
    content = load_content()

    assert {column.slug for column in content.columns} == CATEGORIES
    assert {len(column.articles) for column in content.columns} == {6}
    articles = [article for column in content.columns for article in column.articles]
    assert max(article.days_ago for article in articles) < seeding.JOINED_DAYS
    assert {len([c for c in article.comments if c.status == "visible"]) for article in articles} == {10}
    assert max(Counter(article.slug for article in articles).values()) == 1
    comments = [comment for article in articles for comment in article.comments]
    for comment in comments:
        comments.extend(comment.replies)
    texts = [comment.text for comment in comments if comment.status != "deleted"]
    assert all(clean_comment_text(text) for text in texts)
    assert max(Counter(texts).values()) == 1
    assert {comment.status for comment in comments} == {"visible", "pending", "deleted"}
    assert max(len(comment.replies) for comment in comments) > 1
    assert any(comment.reports for comment in comments)
    assert any(comment.guest for comment in comments)
    assert {normalize_text(text) for text in texts}.isdisjoint(
        normalize_text(comment.text) for comment in read_comments()
    )


def test_a_moderator_has_labelled_most_of_what_ships_and_left_some_of_every_kind() -> None:
    comments = [
        comment
        for column in load_content().columns
        for article in column.articles
        for comment in article.comments
    ]
    for comment in comments:
        comments.extend(comment.replies)

    taught = Counter(
        comment.label for comment in comments if comment.label and split_of(comment.text) == "train"
    )
    assert min(taught[sentiment] for sentiment in Sentiment.values) > 30
    labelled = sum(bool(comment.label) for comment in comments)
    assert 0.5 < labelled / len(comments) < 0.8
    assert {comment.status for comment in comments if comment.label} == {"visible"}


@pytest.mark.django_db
def test_seeding_makes_people_articles_and_comments_in_the_past(folder: Path) -> None:
    counts = seed_demo(content=load_content(folder))

    assert counts == SeedCounts(categories=1, users=5, articles=1, comments=2)
    article = Article.objects.get()
    assert article.is_public()
    assert "<strong>豆浆</strong>" in article.body_html
    assert [tag.name for tag in article.tags.all()] == ["早餐"]
    comments = list(Comment.objects.order_by("created_at"))
    assert [comment.created_at - article.published_at for comment in comments] == [
        timedelta(hours=1.5),
        timedelta(hours=2),
    ]
    assert all(comment.created_at <= timezone.now() for comment in comments)
    assert all(comment.author.date_joined < article.published_at for comment in comments)


@pytest.mark.django_db
def test_a_conversation_is_seeded_as_it_would_stand(folder: Path) -> None:
    comments = [
        {
            "author": "xiaoman",
            "hours_after": 1,
            "text": "好喝",
            "likes": 1,
            "replies": [{"author": "linxia", "hours_after": 2, "text": "谢谢"}],
            "reports": [{"by": "linxia", "reason": "spam"}],
        },
        {"author": None, "guest": "路人", "hours_after": 3, "text": "也想尝尝", "status": "pending"},
        {
            "author": "xiaoman",
            "hours_after": 4,
            "text": "",
            "status": "deleted",
            "replies": [{"author": "linxia", "hours_after": 5, "text": "好的"}],
        },
    ]
    (folder / "food.json").write_text(json.dumps(column(comments=comments)), encoding="utf-8")

    assert seed_demo(content=load_content(folder)).comments == 5

    top, reply, guests, tombstone, _answer = Comment.objects.order_by("created_at")
    assert (reply.parent, reply.depth, top.reply_count, top.shown_replies) == (top, 1, 1, 1)
    assert top.like_count == top.likes.count() == 1
    assert top.report_count == top.reports.filter(settled_at=None).count() == 1
    assert top.constructiveness > 0
    assert (guests.byline, guests.decisions.get().reason) == ("路人", "rule:guest")
    assert (tombstone.text, tombstone.author, tombstone.reply_count) == ("", None, 1)
    assert all(comment.changed_at == comment.created_at for comment in Comment.objects.all())


@pytest.mark.django_db
def test_what_the_moderator_said_is_on_record_and_teaches(folder: Path) -> None:
    comments = [
        {"author": "xiaoman", "hours_after": 1, "text": "好喝", "label": "positive"},
        {"author": "laowang", "hours_after": 2, "text": "几点开门？", "label": "neutral"},
        {"author": "laowang", "hours_after": 3, "text": "太甜了"},
    ]
    (folder / "food.json").write_text(json.dumps(column(comments=comments)), encoding="utf-8")

    seed_demo(content=load_content(folder))

    labels = Label.objects.order_by("pk").values_list(
        "comment__text", "sentiment", "source", "moderator__username"
    )
    moderators = (Source.MODERATOR.value, "moderator")
    assert set(labels) == {("好喝", "positive", *moderators), ("几点开门？", "neutral", *moderators)}
    samples = Sample.objects.values_list("text", "label", "source", "site")
    assert set(samples) == {
        ("好喝", "positive", "moderator", "food"),
        ("几点开门？", "neutral", "moderator", "food"),
    }
    for decision in Decision.objects.select_related("comment", "by"):
        sample = Sample.objects.get(comment=decision.comment)
        assert (decision.action, decision.by.username) == ("relabel", "moderator")
        assert (decision.from_label, decision.to_label) == ("", sample.label)
        assert decision.comment.created_at < decision.at == sample.changed_at <= timezone.now()
    assert Decision.objects.count() == 2
    assert [comment.text for comment in comments_in(Tab.ALL, {}).filter(labels=None)] == ["太甜了"]


@pytest.mark.django_db
def test_what_happened_would_be_in_the_future_happens_now(folder: Path) -> None:
    comments = [{"author": "xiaoman", "hours_after": 900, "text": "来晚了"}]
    (folder / "food.json").write_text(json.dumps(column(days_ago=0, comments=comments)), encoding="utf-8")

    seed_demo(content=load_content(folder))

    assert Article.objects.get().published_at <= timezone.now()
    assert Comment.objects.get().created_at <= timezone.now()


@pytest.mark.django_db
def test_an_article_gets_the_cover_that_is_drawn_for_it(folder: Path, settings, client: Client) -> None:
    rows = column(cover=["hills", "#12343b", "#f2d5a8"])
    (folder / "food.json").write_text(json.dumps(rows), encoding="utf-8")
    seed_demo(content=load_content(folder))
    cover = Article.objects.get(slug="soy-milk").cover
    assert cover is not None
    assert (cover.width, cover.height, cover.owner.username) == (1280, 720, "linxia")
    assert cover.url in client.get("/").content.decode()
    assert client.get(cover.url).content[8:12] == b"WEBP"


def test_a_cover_is_the_same_whenever_it_is_drawn() -> None:
    one = draw_cover("rings", "#12343b", "#f2d5a8", "soy-milk")
    assert one == draw_cover("rings", "#12343b", "#f2d5a8", "soy-milk")
    assert one != draw_cover("rings", "#12343b", "#f2d5a8", "eggs")


@pytest.mark.django_db
def test_an_article_was_opened_on_every_day_since_it_appeared(folder: Path) -> None:
    seed_demo(content=load_content(folder))
    seed_demo(content=load_content(folder))

    article = Article.objects.get()
    views = dict(ArticleViews.objects.filter(article=article).values_list("day", "views"))
    today = timezone.localdate()
    assert set(views) == {today - timedelta(days=ago) for ago in range(4)}
    assert min(views.values()) > 0
    assert article.published_at is not None
    assert timezone.localdate(article.published_at) == min(views)


@pytest.mark.django_db
def test_seeding_twice_changes_nothing(folder: Path) -> None:
    content = load_content(folder)
    seed_demo(content=content)
    before = [list(model.objects.order_by("pk").values()) for model in (User, Category, Article, Comment)]

    counts = seed_demo(content=content)

    assert counts == SeedCounts(categories=0, users=0, articles=0, comments=0)
    assert before == [
        list(model.objects.order_by("pk").values()) for model in (User, Category, Article, Comment)
    ]


@pytest.mark.django_db(transaction=True)
def test_a_killed_seeding_is_completed_by_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = column(slug="film") | {"category": {"slug": "film", "name": "影视", "description": ""}}
    second["articles"][0]["slug"] = "fog"
    (folder / "film.json").write_text(json.dumps(second), encoding="utf-8")
    content = load_content(folder)

    def stop_in_the_second(article: seeding.SeedArticle) -> None:
        if article.slug == "soy-milk":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seed_demo(content=content, on_article=stop_in_the_second)
    assert list(Category.objects.values_list("slug", flat=True)) == ["film"]
    assert (Article.objects.count(), Comment.objects.count()) == (1, 2)

    assert seed_demo(content=content) == SeedCounts(categories=1, users=0, articles=1, comments=2)
    assert (Article.objects.count(), Comment.objects.count()) == (2, 4)


@pytest.mark.django_db
def test_what_somebody_deleted_stays_deleted(folder: Path) -> None:
    content = load_content(folder)
    seed_demo(content=content)
    Comment.objects.filter(text="好喝").delete()

    assert seed_demo(content=content) == SeedCounts(categories=0, users=0, articles=0, comments=0)
    assert Comment.objects.count() == 1

    Article.objects.all().delete()
    assert seed_demo(content=content) == SeedCounts(categories=0, users=0, articles=0, comments=0)


@pytest.mark.django_db
def test_the_sweep_finds_seeded_comments_at_once_and_no_message_is_queued(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blog_site.comments.nudges.open_queue", lambda: pytest.fail("seeding must not queue"))

    seed_demo(content=load_content(folder))

    assert Comment.objects.unscored().older_than(20).count() == 2


@pytest.mark.django_db
def test_readers_moderators_and_administrators_can_sign_in(folder: Path, client: Client) -> None:
    seed_demo(content=load_content(folder), password=PASSWORD)

    for name in ("xiaoman", "moderator", "admin"):
        assert client.login(username=name, password=PASSWORD)
    assert User.objects.get(username="moderator").has_perm("labels.add_label")
    assert not User.objects.get(username="moderator").is_superuser
    assert User.objects.get(username="admin").is_superuser
    assert not User.objects.get(username="xiaoman").is_staff


@pytest.mark.django_db
def test_somebody_who_already_has_a_demo_name_gains_no_rights(folder: Path) -> None:
    make_user("admin")
    make_user("moderator")
    labelled = [{"author": "xiaoman", "hours_after": 1, "text": "好喝", "label": "positive"}]
    (folder / "food.json").write_text(json.dumps(column(comments=labelled)), encoding="utf-8")

    seed_demo(content=load_content(folder))

    assert not Label.objects.exists()  # in the name of somebody who may not

    assert not User.objects.filter(is_staff=True).exists()
    assert User.objects.get(username="admin").check_password(PASSWORD)
    assert not User.objects.get(username="moderator").groups.exists()


@pytest.mark.django_db
def test_somebody_elses_article_of_the_same_address_is_left_alone(folder: Path) -> None:
    theirs = make_article("我的豆浆", slug="soy-milk")

    counts = seed_demo(content=load_content(folder))

    assert (counts.articles, counts.comments) == (0, 0)
    theirs.refresh_from_db()
    assert theirs.title == "我的豆浆"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "food.json is not what the demo expects"),
        ("{}", "food.json is not what the demo expects"),
        (json.dumps(column(author="nobody")), "nobody"),
        (json.dumps(column(surprise=1)), "surprise"),
        (json.dumps(column(comments=[{"hours_after": 1, "text": "好", "label": "great"}])), "great"),
    ],
)
def test_a_broken_content_file_is_named(folder: Path, text: str, complaint: str) -> None:
    (folder / "food.json").write_text(text, encoding="utf-8")

    with pytest.raises(ContentError, match=complaint):
        load_content(folder)


@pytest.mark.django_db
def test_the_command_fills_the_blog_and_says_how_to_sign_in(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(seeding.load_content, "__defaults__", (folder,))

    call_command("seed_demo")

    said = capsys.readouterr().out
    assert "1 篇文章、2 条评论" in said
    assert DEMO_PASSWORD in said
    assert User.objects.get(username="linxia").check_password(DEMO_PASSWORD)


@pytest.mark.django_db
def test_the_quiet_command_prints_nothing(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(seeding.load_content, "__defaults__", (folder,))

    call_command("seed_demo", "--quiet", "--password", PASSWORD)

    assert capsys.readouterr().out == ""
    assert User.objects.get(username="linxia").check_password(PASSWORD)


@pytest.mark.django_db
def test_the_command_reports_broken_content_without_a_trace(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(seeding.load_content, "__defaults__", (tmp_path,))

    with pytest.raises(CommandError, match="users.json cannot be read"):
        call_command("seed_demo")
