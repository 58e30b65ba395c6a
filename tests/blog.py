"""People, articles, comments and predictions for tests, made the way the blog makes them."""

from __future__ import annotations

import functools
from datetime import timedelta

from django.contrib.auth.hashers import make_password
from django.utils import timezone

from blog_site.articles.hot import touch_page
from blog_site.articles.models import Article, Category
from blog_site.articles.services import save_article
from blog_site.comments.models import Comment, Prediction
from blog_site.users.models import User
from ml.text import text_digest

PASSWORD = "a-long-and-odd-password"


def make_user(username: str = "reader", **fields: object) -> User:
    return User.objects.create(username=username, password=_hashed_password(), **fields)


@functools.cache
def _hashed_password() -> str:
    """Hashed once for everybody: it takes a third of a second by design."""
    return make_password(PASSWORD)


def make_category(slug: str = "food", name: str = "美食") -> Category:
    return Category.objects.get_or_create(slug=slug, defaults={"name": name})[0]


def make_article(
    title: str = "豆浆与油条", *, author: User | None = None, draft: bool = False, **fields: object
) -> Article:
    tags = fields.pop("tags", [])
    values = {
        "title": title,
        "body_markdown": "热豆浆配**油条**。",
        "category": make_category(),
        "author": author
        or User.objects.filter(username="writer").first()
        or make_user("writer", display_name="林夏"),
        "status": Article.Status.DRAFT if draft else Article.Status.PUBLISHED,
    }
    return save_article(article=Article(**values | fields), tags=tags)


def make_comment(
    article: Article, text: str = "很好吃", *, author: User | None = None, minutes_ago: float = 0
) -> Comment:
    return Comment.objects.create(
        article=article,
        author=author or User.objects.filter(username="reader").first() or make_user(),
        text=text,
        text_digest=text_digest(text),
        created_at=timezone.now() - timedelta(minutes=minutes_ago),
    )


def make_prediction(
    comment: Comment, label: str = "positive", *, score: float = 0.934, model: str = "a"
) -> Prediction:
    prediction = Prediction.objects.create(
        comment=comment,
        text_digest=comment.text_digest,
        model_digest=model * 64,
        label=label,
        score=score,
        probabilities={label: score},
        latency_ms=1.0,
    )
    Comment.objects.filter(pk=comment.pk).update(changed_at=timezone.now())
    touch_page(comment.article_id)
    return prediction
