"""The demo's people, articles and comments: read from `content/`, put into the database, never twice."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from django.contrib.auth.hashers import make_password
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from blog_site.articles.hot import touch_page
from blog_site.articles.models import Article, ArticleViews, Category
from blog_site.articles.services import save_article
from blog_site.comments.constructiveness import rate_constructiveness
from blog_site.comments.decisions import record_decision
from blog_site.comments.models import Comment, Decision, Like, Report, Rules, Sentiment
from blog_site.comments.rules import Facts, judge
from blog_site.comments.text import clean_comment_text
from blog_site.demo.covers import draw_cover
from blog_site.demo.moderating import label_comments
from blog_site.media.services import UploadRefused, store_image
from blog_site.users.models import User
from blog_site.users.services import grant_moderators
from ml.text import text_digest

logger = logging.getLogger(__name__)

CONTENT_FOLDER = Path(__file__).resolve().parent / "content"
DEMO_PASSWORD = "huisheng-demo"  # noqa: S105 - the demo prints it

JOINED_DAYS = 150  # ago, at least: everybody is older here than what they say
VIEW_DAYS = 60  # of the last 30 and, to compare with, of as many before

Parsed = TypeVar("Parsed")


class ContentError(Exception):
    """A content file cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class SeedUser:
    username: str
    display_name: str
    bio: str = ""


@dataclass(frozen=True)
class SeedReport:
    by: str
    reason: str
    note: str = ""


@dataclass(frozen=True)
class SeedComment:
    """A comment of a member or of a `guest`; `status` other than visible says what became of it.

    `label` is the sentiment that a moderator found in it; empty where none has looked yet.
    """

    hours_after: float  # after the article
    text: str
    label: str = ""
    author: str | None = None
    guest: str = ""
    status: str = Comment.Status.VISIBLE
    likes: int = 0  # by as many members, always the same ones
    replies: Sequence[SeedComment] = ()
    reports: Sequence[SeedReport] = ()

    def people(self) -> set[str]:
        """Everybody who says something here."""
        own = {self.author} if self.author else set()
        return own.union({report.by for report in self.reports}, *(reply.people() for reply in self.replies))


@dataclass(frozen=True)
class SeedArticle:
    slug: str
    title: str
    summary: str
    tags: Sequence[str]
    author: str
    days_ago: float
    body: str
    comments: Sequence[SeedComment]
    cover: Sequence[str] = ()  # a motif of covers.py, its dark colour and its light one


@dataclass(frozen=True)
class SeedColumn:
    """A category with its articles."""

    slug: str
    name: str
    description: str
    articles: Sequence[SeedArticle]
    guests_may_comment: bool = False


@dataclass(frozen=True)
class Content:
    users: Sequence[SeedUser]
    columns: Sequence[SeedColumn]

    def articles(self) -> int:
        return sum(len(column.articles) for column in self.columns)


@dataclass(frozen=True)
class SeedCounts:
    """How many rows a seeding made; all zero when everything was there."""

    categories: int
    users: int
    articles: int
    comments: int


MODERATOR = SeedUser("moderator", "审核员", "读评论，改标注。")
ADMINISTRATOR = SeedUser("admin", "管理员", "看着这一切运转。")


def load_content(folder: Path = CONTENT_FOLDER) -> Content:
    """Read `users.json` and one file per category. Raises ContentError."""
    users = _read(folder / "users.json", _parse_users)
    files = sorted(path for path in folder.glob("*.json") if path.name != "users.json")
    content = Content(users=users, columns=[_read(path, _parse_column) for path in files])
    _check_authors(content)
    return content


def _read(path: Path, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ContentError(f"{path.name} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ContentError(f"{path.name} is not what the demo expects: {error!r}") from error


def _parse_users(data: dict[str, Any]) -> list[SeedUser]:
    return [SeedUser(**row) for row in data["users"]]


def _parse_column(data: dict[str, Any]) -> SeedColumn:
    return SeedColumn(**data["category"], articles=[_parse_article(row) for row in data["articles"]])


def _parse_article(row: dict[str, Any]) -> SeedArticle:
    return SeedArticle(**{**row, "comments": [_parse_comment(comment) for comment in row["comments"]]})


def _parse_comment(row: dict[str, Any]) -> SeedComment:
    parts = {
        "replies": [_parse_comment(reply) for reply in row.get("replies", ())],
        "reports": [SeedReport(**report) for report in row.get("reports", ())],
        "label": Sentiment(row["label"]).value if "label" in row else "",
    }
    return SeedComment(**row | parts)


def _check_authors(content: Content) -> None:
    known = {user.username for user in content.users}
    for column in content.columns:
        for article in column.articles:
            unknown = {article.author}.union(*(comment.people() for comment in article.comments)) - known
            if unknown:
                raise ContentError(
                    f"{column.slug}.json: article {article.slug!r} names {sorted(unknown)}, who are not in users.json"
                )


def seed_demo(
    *,
    content: Content,
    password: str = DEMO_PASSWORD,
    on_article: Callable[[SeedArticle], None] = lambda _article: None,
) -> SeedCounts:
    """Make the categories that are missing, each with all of its articles and comments, or none of them.

    So a killed run is completed by the next, and what somebody has deleted from a category stays deleted. Comments
    are stored without queueing anything: they are in the past, where the sweeps find them.
    """
    users = _seed_users(content.users, password)
    names = [user.username for user in content.users]
    members = {member.username: member for member in User.objects.filter(username__in=names)}
    people = _People(members, User.objects.get(username=MODERATOR.username))
    made = [_seed_column(column, people, on_article) for column in content.columns]
    for column, counts in zip(content.columns, made, strict=True):
        if counts:
            _seed_covers(column)
    return SeedCounts(
        categories=sum(column is not None for column in made),
        users=users,
        articles=sum(column.articles for column in made if column),
        comments=sum(column.comments for column in made if column),
    )


@dataclass(frozen=True)
class _People:
    members: Mapping[str, User]  # who write, by their names
    moderator: User


@dataclass(frozen=True)
class _ColumnCounts:
    articles: int
    comments: int


@transaction.atomic
def _seed_column(
    column: SeedColumn, people: _People, on_article: Callable[[SeedArticle], None]
) -> _ColumnCounts | None:
    """Make a category with its articles; None when it was there."""
    category, made = Category.objects.get_or_create(
        slug=column.slug,
        defaults={
            "name": column.name,
            "description": column.description,
            "guests_may_comment": column.guests_may_comment,
        },
    )
    articles = comments = 0
    for seed in column.articles:
        if (
            made and not Article.objects.filter(slug=seed.slug).exists()
        ):  # else somebody's of the same address
            articles += 1
            comments += _seed_article(seed, category, people)
        on_article(seed)
    return _ColumnCounts(articles, comments) if made else None


def _seed_covers(column: SeedColumn) -> None:
    """Draw the covers of a category that was just made; files are written outside of its transaction."""
    for seed in column.articles:
        article = Article.objects.filter(slug=seed.slug, cover=None).select_related("author").first()
        if not seed.cover or article is None:
            continue
        motif, dark, light = seed.cover
        file = SimpleUploadedFile(f"{seed.slug}.png", draw_cover(motif, dark, light, seed.slug), "image/png")
        try:
            image = store_image(owner=article.author, file=file)
        except UploadRefused as refusal:  # a demo without pictures is still one
            logger.warning("%s goes without its cover: %s", seed.slug, refusal)
            continue
        with transaction.atomic():
            Article.objects.filter(pk=article.pk).update(cover=image)
            touch_page(article.pk)


def _seed_users(readers: Iterable[SeedUser], password: str) -> int:
    """Make the accounts that are missing. An account that is there keeps its rights: it may be a real person's."""
    hashed = make_password(password)  # once: hashing is slow by design, and everybody has the same one
    made = sum(_seed_user(user, hashed) for user in readers)
    with transaction.atomic():
        if _seed_user(MODERATOR, hashed, is_staff=True):
            made += 1
            User.objects.get(username=MODERATOR.username).groups.add(grant_moderators())
    made += _seed_user(ADMINISTRATOR, hashed, is_staff=True, is_superuser=True)
    return made


def _seed_user(seed: SeedUser, hashed: str, **rights: bool) -> bool:
    _user, made = User.objects.get_or_create(
        username=seed.username,
        defaults={
            "display_name": seed.display_name,
            "bio": seed.bio,
            "password": hashed,
            "date_joined": _joined_at(seed.username),
            **rights,
        },
    )
    return made


def _joined_at(username: str) -> datetime:
    """Some day before the oldest article, each account another one."""
    return timezone.now() - timedelta(days=JOINED_DAYS + zlib.crc32(username.encode()) % 600)


def _seed_article(seed: SeedArticle, category: Category, people: _People) -> int:
    """Make an article with its comments; says how many."""
    article = save_article(article=_draft_article(seed, category), tags=seed.tags)
    assert article.published_at is not None
    _seed_views(article, article.published_at)
    return _seed_comments(seed, article, article.published_at, people)


def _seed_views(article: Article, published_at: datetime) -> None:
    """Write down how often an article would have been opened on each of the last days.

    Many read what is new, some what is a week old, few what is old; at weekends more, and never the same number twice.
    """
    zone = timezone.get_default_timezone()
    today, published = timezone.localdate(timezone=zone), timezone.localdate(published_at, timezone=zone)
    interest = 40 + zlib.crc32(article.slug.encode()) % 80  # of this article among others
    rows = []
    for ago in range(min(VIEW_DAYS, (today - published).days + 1)):
        day = today - timedelta(days=ago)
        age = (day - published).days
        chance = 0.6 + zlib.crc32(f"{article.slug}:{day}".encode()) % 100 / 125
        weekend = 1.35 if day.weekday() >= 5 else 1.0
        views = round(interest * (1.6 / (1 + age / 3) + 0.12) * chance * weekend)
        rows.append(ArticleViews(article=article, day=day, views=max(views, 1)))
    ArticleViews.objects.bulk_create(rows)


def _draft_article(seed: SeedArticle, category: Category) -> Article:
    return Article(
        slug=seed.slug,
        title=seed.title,
        summary=seed.summary,
        body_markdown=seed.body,
        category=category,
        author=User.objects.get(username=seed.author),
        status=Article.Status.PUBLISHED,
        published_at=_published_at(seed),
    )


def _published_at(seed: SeedArticle) -> datetime:
    """A moment on the right day, between 7:00 and 23:00, the same one whenever the day is the same."""
    minutes = zlib.crc32(seed.slug.encode()) % (16 * 60)
    day = timezone.localtime(timezone.now() - timedelta(days=seed.days_ago))
    moment = day.replace(hour=7, minute=0, second=0, microsecond=0) + timedelta(minutes=minutes)
    return min(moment, timezone.now())


def _seed_comments(seed: SeedArticle, article: Article, published_at: datetime, people: _People) -> int:
    thread = _Thread(article, published_at, people.members)
    made = sum(thread.add(comment) for comment in seed.comments)
    label_comments(labels=thread.labels, moderator=people.moderator)
    # Dated now by being saved; the sweeps leave what is new to the queue, where these never were.
    article.comments.update(updated_at=F("created_at"), changed_at=F("created_at"))
    return made


@dataclass(frozen=True)
class _Thread:
    """Writes the comments of an article down as they would stand after all that has happened to them."""

    article: Article
    published_at: datetime
    members: Mapping[str, User]
    labels: dict[int, str] = field(default_factory=dict)  # comment id → what the moderator says of it

    def add(self, seed: SeedComment, parent: Comment | None = None) -> int:
        """Make a comment with what hangs on it; says how many comments that is."""
        comment = self._draft(seed, parent)
        comment.save(force_insert=True)
        likers = self._likers(seed)[: seed.likes]
        Like.objects.bulk_create(Like(comment=comment, user=liker) for liker in likers)
        Report.objects.bulk_create(
            Report(comment=comment, reporter=self.members[report.by], reason=report.reason, note=report.note)
            for report in seed.reports
        )
        if seed.status == Comment.Status.PENDING:
            self._record_hold(comment)
        if seed.label:
            self.labels[comment.pk] = seed.label
        return 1 + sum(self.add(reply, comment) for reply in seed.replies)

    def _draft(self, seed: SeedComment, parent: Comment | None) -> Comment:
        text = clean_comment_text(seed.text) if seed.status != Comment.Status.DELETED else ""
        visible = sum(reply.status == Comment.Status.VISIBLE for reply in seed.replies)
        return Comment(
            article=self.article,
            parent=parent,
            depth=parent.depth + 1 if parent else 0,
            author=self.members[seed.author] if seed.author and text else None,
            guest_name=seed.guest,
            text=text,
            text_digest=text_digest(text) if text else "",
            status=seed.status,
            created_at=min(self.published_at + timedelta(hours=seed.hours_after), timezone.now()),
            like_count=min(seed.likes, len(self._likers(seed))),
            reply_count=visible,
            shown_replies=visible,
            report_count=len(seed.reports),
            constructiveness=rate_constructiveness(text=text, likes=seed.likes),
        )

    def _likers(self, seed: SeedComment) -> list[User]:
        """Everybody who might like a comment, in an order of its own."""
        others = [member for name, member in self.members.items() if name != seed.author]
        return sorted(others, key=lambda member: zlib.crc32(f"{member.username}:{seed.text}".encode()))

    def _record_hold(self, comment: Comment) -> None:
        held = judge(Facts(comment.text, by_guest=comment.author is None), Rules.load(), ())
        record_decision(
            comment=comment,
            to_status=comment.status,
            action=Decision.Action.HOLD,
            by=None,
            reason=held.reason if held else "",
            from_status="",
        )
