"""Rows that tests need before they begin, made as the product makes them where it has a service for it."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

from django.utils import timezone

from blog_site.articles.models import Article, Category
from blog_site.articles.services import save_article
from blog_site.comments.models import Comment
from blog_site.comments.services import post_comment
from blog_site.users.models import User
from ml.text import text_digest

_numbers = count(1)


def make_user(username: str = "", **fields: Any) -> User:
    """An account; without a `password` nobody can sign in to it (hashing one takes a quarter of a second)."""
    return User.objects.create_user(username=username or f"reader{next(_numbers)}", **fields)


def make_category(slug: str = "food", name: str = "") -> Category:
    category, _made = Category.objects.get_or_create(slug=slug, defaults={"name": name or slug})
    return category


def make_article(**fields: Any) -> Article:
    """A published article in the category "food"."""
    fields = {
        "title": f"豆浆要烫着喝 {next(_numbers)}",
        "body_markdown": "清早的第一碗豆浆。",
        "status": Article.Status.PUBLISHED,
        **fields,
    }
    fields.setdefault("category", make_category())
    fields["author"] = fields.get("author") or make_user()
    return save_article(article=Article(**fields), tags=[])


def make_comment(text: str = "味道真好", *, age_seconds: float = 0, **fields: Any) -> Comment:
    """A comment as the table holds it, without a nudge; `age_seconds` ago for the sweeps."""
    fields["article"] = fields.get("article") or make_article()
    fields["author"] = fields.get("author") or make_user()
    comment = Comment.objects.create(text=text, text_digest=text_digest(text), **fields)
    if age_seconds:
        Comment.objects.filter(pk=comment.pk).update(
            updated_at=timezone.now() - timedelta(seconds=age_seconds)
        )
        comment.refresh_from_db()
    return comment


def make_reply(parent: Comment, text: str = "同感", **fields: Any) -> Comment:
    """A reply as the product makes it, counted above it."""
    fields.setdefault("author", None if "guest_name" in fields else make_user())
    return post_comment(article=parent.article, parent=parent, text=text, **fields)
