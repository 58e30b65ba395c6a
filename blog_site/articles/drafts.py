"""What is typed and not saved: kept every few seconds, apart from the articles, so that a crash loses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.core.exceptions import ValidationError
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from blog_site.users.models import User

from .models import Article, Draft

MAX_DRAFTS: Final = 100  # of one writer
FIELDS: Final = ("title", "category", "summary", "body_markdown", "tag_names", "slug", "publish_at", "cover")


@dataclass(frozen=True)
class Kept:
    """Where the text lies now; `elsewhere` is what was found to be kept of the same article from another page."""

    draft: Draft
    conflict: bool  # somebody else has written on the draft that was named: this text has one of its own now
    elsewhere: tuple[Draft, ...]


def keep_draft(
    *, author: User, article: Article | None, fields: Mapping[str, str], draft_id: int | None, revision: int
) -> Kept:
    """Keep what is typed. Never over what another page has kept since: then there are two drafts.

    `draft_id` and `revision` are those of the last answer. Raises ValidationError when the author has MAX_DRAFTS.
    """
    typed = {name: str(fields.get(name, "")) for name in FIELDS}
    own = Draft.objects.filter(author=author, article=article)
    now = timezone.now()
    if draft_id is not None:
        going_on = own.filter(pk=draft_id, revision=revision)
        if going_on.update(fields=typed, revision=F("revision") + 1, saved_at=now):
            return Kept(own.get(pk=draft_id), conflict=False, elsewhere=())
    if Draft.objects.filter(author=author).count() >= MAX_DRAFTS:
        raise ValidationError(_("没存的稿子太多了，请先到“我的文章”里清理一些。"))
    others = tuple(own[:5]) if article is not None or draft_id is not None else ()
    draft = Draft.objects.create(author=author, article=article, fields=typed, saved_at=now)
    return Kept(draft, conflict=draft_id is not None, elsewhere=others)


def keep_version(*, article: Article, author: User) -> Draft:
    """Keep an article's saved text as a draft, before something else is saved over it."""
    fields = {
        "title": article.title,
        "category": str(article.category_id),
        "summary": article.summary,
        "body_markdown": article.body_markdown,
        "tag_names": ", ".join(tag.name for tag in article.tags.all()),
        "slug": article.slug,
        "cover": str(article.cover_id or ""),
    }
    return keep_draft(author=author, article=article, fields=fields, draft_id=None, revision=0).draft
