"""The blog that is measured, made in bulk: `python -m blog_site.bench.content`, beside its database.

Texts are reviews of the bootstrap corpus, put together: real Chinese, so that words are as common and as rare as they
are. The same numbers give the same blog.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import django

django.setup()

from django.conf import settings  # noqa: E402 - models need the set-up
from django.db import connection  # noqa: E402 - models need the set-up
from django.test import Client  # noqa: E402
from django.urls import reverse  # noqa: E402
from django.utils import timezone  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: E402

from blog_site.articles.hot import touch_page  # noqa: E402
from blog_site.articles.models import Article, Category, SearchEntry, SearchPosting, Tag  # noqa: E402
from blog_site.articles.search import rebuild_index  # noqa: E402
from blog_site.articles.services import save_article  # noqa: E402
from blog_site.comments.models import Comment, Prediction, Sentiment  # noqa: E402
from blog_site.users.models import User  # noqa: E402
from ml.bootstrap import read_bootstrap_corpus  # noqa: E402
from ml.text import text_digest  # noqa: E402

REVIEWS_AN_ARTICLE: Final = 10  # 500 characters
ROWS_AT_ONCE: Final = 1000
REPLIED_TO: Final = 500  # comments, the oldest
SAVED_ONE_BY_ONE: Final = 30
QUERIES_A_KIND: Final = 25
COMMENTS_TO_POST: Final = 200
SLUG: Final = "five-thousand-comments"


@dataclass(frozen=True)
class Amounts:
    articles: int
    comments: int  # of the one article that is read
    users: int


class Author:
    """Puts texts together."""

    def __init__(self, reviews: Sequence[str]) -> None:
        self._random = random.Random(7)
        self._reviews = reviews

    def title(self) -> str:
        review = self._review()
        return review[: self._random.randint(6, 18)].rstrip("，。！？,.!? ") or "书评"

    def paragraphs(self) -> list[str]:
        return [self._review() for _ in range(REVIEWS_AN_ARTICLE)]

    def _review(self) -> str:
        return self._random.choice(self._reviews)

    def comment(self) -> str:
        return self._review()[:200]

    def queries(self) -> dict[str, list[str]]:
        """What readers ask, by kind: all but the last kinds stand somewhere."""
        return {
            "character": [self._cut(1) for _ in range(QUERIES_A_KIND)],
            "pair": [self._cut(2) for _ in range(QUERIES_A_KIND)],
            "phrase": [self._cut(self._random.randint(3, 6)) for _ in range(QUERIES_A_KIND)],
            "two words": [f"{self._cut(2)} {self._cut(2)}" for _ in range(QUERIES_A_KIND)],
            "latin": ["dvd", "cd", "windows", "ip", "vista", "java", "a", "ok", "usb", "cpu"],
            "mostly everywhere": ["的", "了", "我们 一个", "不错 非常", "这本书", "酒店的", "没有 可以 就是"],
            "nowhere": ["麠麠", "zzzz", "的 麠", "麠麡一"],
        }

    def _cut(self, length: int) -> str:
        while True:
            review = self._review()
            start = self._random.randrange(max(1, len(review) - length))
            cut = review[start : start + length]
            if len(cut) == length and all("\u4e00" <= character <= "\u9fff" for character in cut):
                return cut


def make_blog(amounts: Amounts) -> dict[str, Any]:
    """Fill an empty database; gives what the measurements need to know of it."""
    author = Author([example.text for example in read_bootstrap_corpus().examples if len(example.text) > 3])
    categories = Category.objects.bulk_create(
        Category(slug=f"c{number}", name=f"分类{number}") for number in range(6)
    )
    categories = list(Category.objects.all())
    writers = [User.objects.create(username=f"user{number}") for number in range(amounts.users)]
    with _progress() as progress:
        _make_articles(amounts.articles, author, categories, writers, progress)
        index_seconds = _build_index(progress)
        _make_comments(amounts.comments, author, writers, progress)
    return {
        "path": reverse("articles:article", args=[SLUG]),
        "post_path": reverse("comments:post_comment", args=[SLUG]),
        "search_path": reverse("articles:search"),
        "queries": author.queries(),
        "comments": [author.comment() for _ in range(COMMENTS_TO_POST)],
        "session_cookie": settings.SESSION_COOKIE_NAME,
        "sessions": [_sign_in(writer) for writer in writers],
        "index": _describe_index(index_seconds) | _measure_saving(author, categories[0], writers[0]),
    }


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _make_articles(
    count: int, author: Author, categories: Sequence[Category], writers: Sequence[User], progress: Progress
) -> None:
    bar = progress.add_task("writing articles", total=count)
    began = timezone.now() - timedelta(days=3000)
    tags = Tag.objects.bulk_create(Tag(slug=f"t{number}", name=f"标签{number}") for number in range(50))
    tags = list(Tag.objects.all())
    through = Article.tags.through
    for start in range(0, count, ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, count))
        Article.objects.bulk_create(
            _article(author, categories, writers, number, began + timedelta(minutes=40 * number))
            for number in numbers
        )
        keys = Article.objects.order_by("-pk").values_list("pk", flat=True)[: len(numbers)]
        through.objects.bulk_create(
            through(article_id=key, tag=tag) for key in keys for tag in {tags[key % 50], tags[key % 7]}
        )
        progress.update(bar, completed=numbers[-1] + 1)


def _article(
    author: Author, categories: Sequence[Category], writers: Sequence[User], number: int, at: datetime
) -> Article:
    paragraphs = author.paragraphs()
    return Article(
        slug=SLUG if number == 0 else f"article-{number}",
        title=author.title(),
        summary=paragraphs[0][:100],
        body_markdown="\n\n".join(paragraphs),
        body_html="".join(f"<p>{paragraph}</p>" for paragraph in paragraphs).replace("&", "&amp;"),
        category=categories[number % len(categories)],
        author=writers[number % len(writers)],
        status=Article.Status.PUBLISHED,
        published_at=at,
    )


def _build_index(progress: Progress) -> float:
    bar = progress.add_task("indexing articles", total=None)
    began = time.perf_counter()
    for done, total in rebuild_index():
        progress.update(bar, completed=done, total=total)
    return time.perf_counter() - began


def _make_comments(count: int, author: Author, writers: Sequence[User], progress: Progress) -> None:
    bar = progress.add_task("writing comments", total=count)
    article = Article.objects.get(slug=SLUG)
    began = timezone.now() - timedelta(days=30)
    for start in range(0, count, ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, count))
        parents = list(Comment.objects.filter(article=article, parent=None)[:REPLIED_TO])
        Comment.objects.bulk_create(
            _comment(article, author.comment(), writers[number % len(writers)], began, number, parents)
            for number in numbers
        )
        progress.update(bar, completed=numbers[-1] + 1)
    _count_replies(article)
    Prediction.objects.bulk_create(_predictions(article), batch_size=ROWS_AT_ONCE)
    touch_page(article.pk)


def _comment(
    article: Article, text: str, writer: User, began: datetime, number: int, parents: Sequence[Comment]
) -> Comment:
    """A third of them are replies."""
    parent = parents[number % len(parents)] if parents and number % 3 == 0 else None
    return Comment(
        article=article,
        parent=parent,
        depth=0 if parent is None else 1,
        author=writer,
        text=text,
        text_digest=text_digest(text),
        created_at=began + timedelta(minutes=5 * number),
    )


def _count_replies(article: Article) -> None:
    counts = Counter(
        Comment.objects.filter(article=article).exclude(parent=None).values_list("parent", flat=True)
    )
    parents = list(Comment.objects.filter(pk__in=counts))
    for parent in parents:
        parent.reply_count = parent.shown_replies = counts[parent.pk]
    Comment.objects.bulk_update(parents, ["reply_count", "shown_replies"], batch_size=ROWS_AT_ONCE)


def _predictions(article: Article) -> Iterator[Prediction]:
    labels = Sentiment.values
    for comment in Comment.objects.filter(article=article):
        label = labels[comment.pk % len(labels)]
        yield Prediction(
            comment=comment,
            text_digest=comment.text_digest,
            model_digest="a" * 64,
            label=label,
            score=0.8,
            probabilities={label: 0.8},
            latency_ms=1.0,
        )


def _sign_in(user: User) -> str:
    """Give the key of a session."""
    client = Client()
    client.force_login(user)
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


def _describe_index(seconds: float) -> dict[str, Any]:
    """What the search's index takes: rows, megabytes beside those of the texts, seconds for all of it."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE articles_article, articles_searchentry, articles_searchposting")
        cursor.fetchall()
        cursor.execute(
            "SELECT table_name, (data_length + index_length) / 1048576 FROM information_schema.tables "
            "WHERE table_schema = DATABASE()"
        )
        megabytes = {name: round(float(size), 1) for name, size in cursor.fetchall()}
    return {
        "rows": SearchPosting.objects.count(),
        "mb": megabytes[SearchPosting._meta.db_table],
        "texts_mb": megabytes[SearchEntry._meta.db_table],
        "articles_mb": megabytes[Article._meta.db_table],
        "build_s": round(seconds, 1),
    }


def _measure_saving(author: Author, category: Category, writer: User) -> dict[str, float]:
    """What saving an article costs with its index, new and edited."""
    new, edited = [], []
    for _ in range(SAVED_ONE_BY_ONE):
        body = "\n\n".join(author.paragraphs())
        article = Article(
            title=author.title(), body_markdown=body, category=category, author=writer, status="published"
        )
        new.append(_milliseconds_to_save(article))
        article.body_markdown = f"{body}\n\n{author.comment()}"
        edited.append(_milliseconds_to_save(article))
    return {
        "save_new_ms": round(statistics.median(new), 1),
        "save_edited_ms": round(statistics.median(edited), 1),
    }


def _milliseconds_to_save(article: Article) -> float:
    began = time.perf_counter()
    save_article(article=article, tags=[])
    return 1000 * (time.perf_counter() - began)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m blog_site.bench.content", description=__doc__)
    for name in ("articles", "comments", "users"):
        parser.add_argument(f"--{name}", type=int, required=True)
    print(json.dumps(make_blog(Amounts(**vars(parser.parse_args(arguments)))), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
