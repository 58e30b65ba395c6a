"""Rendering, saving and publishing articles."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import islice

import nh3
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, Value
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt

from .models import Article, Tag
from .search import index_article

ALLOWED_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol",
    "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ALLOWED_ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "img": {"src", "alt", "title"},
    "ol": {"start"},
}
ALLOWED_SCHEMES = {"http", "https", "mailto"}
LINK_REL = "nofollow ugc noopener"
SLUG_ATTEMPTS = 20  # of which half are random: what still clashes then is not the slug
_LANGUAGE_CLASS = re.compile(r"language-[\w.+#-]{1,40}")


def render_markdown(text: str) -> str:
    """Render Markdown (CommonMark, tables, strikethrough) to safe HTML; raw HTML is shown as text."""
    return nh3.clean(
        _markdown().render(text),
        tags=ALLOWED_TAGS,
        attributes=ALLOWED_ATTRIBUTES,
        attribute_filter=_filter_attribute,
        url_schemes=ALLOWED_SCHEMES,
        link_rel=LINK_REL,
    )


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def _filter_attribute(tag: str, attribute: str, value: str) -> str | None:
    """Keep of a class only the language of a code block, which highlighting needs."""
    if (tag, attribute) != ("code", "class"):
        return value
    return value if _LANGUAGE_CLASS.fullmatch(value) else None


def save_article(*, article: Article, tags: Sequence[str]) -> Article:
    """Save an article with exactly these tags: render it, date its first publication, give it a slug.

    Raises ValidationError for a tag that is longer than a tag may be.
    """
    names = clean_tag_names(tags)
    article.body_html = render_markdown(article.body_markdown)
    _date_publication(article)
    with transaction.atomic():
        _save_under_free_slug(article)
        article.tags.set([find_or_make_tag(name=name) for name in names])
        index_article(article)
    return article


def publish_article(*, article: Article) -> Article:
    """Show an article to everybody; publishing it again keeps the date of the first time."""
    article.status = Article.Status.PUBLISHED
    _date_publication(article)
    with transaction.atomic():
        article.save(update_fields=["status", "published_at", "updated_at"])
        index_article(article)
    return article


def delete_article(*, article: Article) -> None:
    """Delete an article with its comments, and with what was learnt from them; twice does no harm."""
    Article.objects.filter(pk=article.pk).delete()


def _date_publication(article: Article) -> None:
    if article.status == Article.Status.PUBLISHED and article.published_at is None:
        article.published_at = timezone.now()


def clean_tag_names(tags: Sequence[str]) -> list[str]:
    """Give tag names in their order, trimmed, without blanks and without repeating one in another case."""
    names: dict[str, str] = {}
    longest = _max_length(Tag, "name")
    for tag in tags:
        name = " ".join(tag.split())
        if len(name) > longest:
            raise ValidationError(
                _("标签“%(name)s”有 %(count)d 个字符，最多 %(limit)d 个")
                % {"name": f"{name[:20]}…", "count": len(name), "limit": longest}
            )
        if name:
            names.setdefault(name.casefold(), name)
    return list(names.values())


def find_or_make_tag(*, name: str) -> Tag:
    """Find the tag of this name, in whatever case it was first written, or make it."""
    found = _find_tag(name)
    if found is not None:
        return found
    candidates = _slug_candidates(name, fallback="tag", max_length=_max_length(Tag, "slug"))
    for slug in islice(candidates, SLUG_ATTEMPTS):
        try:
            with transaction.atomic():
                return Tag.objects.create(name=name, slug=slug)
        except IntegrityError:
            # Another writer made this very tag meanwhile, or a tag of another name ("C", "C++") has the slug.
            found = _find_tag(name)
            if found is not None:
                return found
    raise ValidationError(_("标签“%(name)s”存不进去，请换一个写法") % {"name": name})


def _find_tag(name: str) -> Tag | None:
    # Not iexact: MySQL leaves case to the column's collation, and a binary one tells Python from python. The database
    # lowers both sides, since SQLite's idea of lower case ends with ASCII; and it may hold names equal that differ
    # here, which is what its unique constraint goes by.
    same = Q(lowered=Lower(Value(name))) | Q(name=name)
    return Tag.objects.alias(lowered=Lower("name")).filter(same).order_by("pk").first()


def _save_under_free_slug(article: Article) -> None:
    if article.slug:
        article.save()
        return
    # Without end: a random slug is free sooner or later, and what else may clash is raised.
    for slug in _slug_candidates(article.title, fallback="article", max_length=_max_length(Article, "slug")):
        if Article.objects.filter(slug=slug).exists():
            continue
        article.slug = slug
        try:
            with transaction.atomic():
                article.save()
        except IntegrityError:
            if not Article.objects.filter(slug=slug).exists():
                raise  # it was not the slug that clashed
        else:
            return


def _slug_candidates(title: str, *, fallback: str, max_length: int) -> Iterator[str]:
    """Give the slug of a title, then numbered ones, then random ones, without end."""
    base = slugify(title, allow_unicode=True)[: max_length - 10].strip("-_") or fallback
    yield base
    yield from (f"{base}-{number}" for number in range(2, 10))
    while True:
        yield f"{base}-{secrets.token_hex(4)}"


def _max_length(model: type[Article] | type[Tag], field: str) -> int:
    length = model._meta.get_field(field).max_length
    assert length is not None
    return length
