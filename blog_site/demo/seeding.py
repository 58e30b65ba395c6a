"""The demo's people, articles and comments: read from `content/`, put into the database, never twice."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from blog_site.articles.models import Article, Category
from blog_site.articles.services import save_article
from blog_site.comments.models import Comment
from blog_site.comments.text import clean_comment_text
from blog_site.users.models import User
from blog_site.users.services import grant_moderators
from ml.text import text_digest

CONTENT_FOLDER = Path(__file__).resolve().parent / "content"
DEMO_PASSWORD = "huisheng-demo"  # noqa: S105 - the demo prints it

Parsed = TypeVar("Parsed")


class ContentError(Exception):
    """A content file cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class SeedUser:
    username: str
    display_name: str
    bio: str = ""


@dataclass(frozen=True)
class SeedComment:
    author: str
    hours_after: float
    text: str


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


@dataclass(frozen=True)
class SeedColumn:
    """A category with its articles."""

    slug: str
    name: str
    description: str
    articles: Sequence[SeedArticle]


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
    return SeedArticle(**{**row, "comments": [SeedComment(**comment) for comment in row["comments"]]})


def _check_authors(content: Content) -> None:
    known = {user.username for user in content.users}
    for column in content.columns:
        for article in column.articles:
            unknown = {article.author, *(comment.author for comment in article.comments)} - known
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
    made = [_seed_column(column, on_article) for column in content.columns]
    return SeedCounts(
        categories=sum(column is not None for column in made),
        users=users,
        articles=sum(column.articles for column in made if column),
        comments=sum(column.comments for column in made if column),
    )


@dataclass(frozen=True)
class _ColumnCounts:
    articles: int
    comments: int


@transaction.atomic
def _seed_column(column: SeedColumn, on_article: Callable[[SeedArticle], None]) -> _ColumnCounts | None:
    """Make a category with its articles; None when it was there."""
    category, made = Category.objects.get_or_create(
        slug=column.slug, defaults={"name": column.name, "description": column.description}
    )
    articles = comments = 0
    for seed in column.articles:
        if (
            made and not Article.objects.filter(slug=seed.slug).exists()
        ):  # else somebody's of the same address
            articles += 1
            comments += _seed_article(seed, category)
        on_article(seed)
    return _ColumnCounts(articles, comments) if made else None


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
        defaults={"display_name": seed.display_name, "bio": seed.bio, "password": hashed, **rights},
    )
    return made


def _seed_article(seed: SeedArticle, category: Category) -> int:
    """Make an article with its comments; says how many."""
    article = save_article(article=_draft_article(seed, category), tags=seed.tags)
    assert article.published_at is not None
    return _seed_comments(seed, article, article.published_at)


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


def _seed_comments(seed: SeedArticle, article: Article, published_at: datetime) -> int:
    authors = dict(
        User.objects.filter(username__in={comment.author for comment in seed.comments}).values_list(
            "username", "pk"
        )
    )
    Comment.objects.bulk_create(
        _draft_comment(comment, article, published_at, authors[comment.author]) for comment in seed.comments
    )
    # bulk_create dates the rows now; the sweeps leave what is new to the queue, where these never were.
    article.comments.update(updated_at=F("created_at"))
    return len(seed.comments)


def _draft_comment(seed: SeedComment, article: Article, published_at: datetime, author_id: int) -> Comment:
    text = clean_comment_text(seed.text)
    return Comment(
        article=article,
        author_id=author_id,
        text=text,
        text_digest=text_digest(text),
        created_at=min(published_at + timedelta(hours=seed.hours_after), timezone.now()),
    )
