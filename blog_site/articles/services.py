"""Saving, publishing and removing articles."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, Value
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from blog_site.media.models import Image, find_digests
from blog_site.media.services import delete_images

from .effort import MAX_STEPS, TooMuchMarkup
from .hot import touch_page
from .models import Article, Draft, OldSlug, Tag
from .rendering import check_markdown, render_markdown
from .search import index_article, remove_article

logger = logging.getLogger(__name__)

MAX_BODY_CHARACTERS = 100_000
MAX_TAGS = 8  # of one article
TOO_MANY_TAGS = gettext_lazy(
    "有 %(show_value)d 个标签，最多 %(limit_value)d 个。"
)  # words of Django's validators
MAX_SLUG_WORDS = 16
SLUG_ATTEMPTS = 20  # of which half are random: what still clashes then is not the slug


def save_article(*, article: Article, tags: Sequence[str]) -> Article:
    """Save an article with exactly these tags: render it, date its first publication, give it a slug.

    Raises ValidationError for tags and for a body that no article may have; it names the field.
    """
    try:
        names = clean_tag_names(tags)
    except ValidationError as error:
        raise ValidationError({"tags": error.messages}) from error
    try:
        article.body_html = render_body(article.body_markdown)
    except ValidationError as error:
        raise ValidationError({"body_markdown": error.messages}) from error
    _date_publication(article)
    with transaction.atomic():
        before = Article.objects.filter(pk=article.pk).values_list("slug", flat=True).first()
        _save_under_free_slug(article)
        _keep_old_slug(article, before)
        article.tags.set([find_or_make_tag(name=name) for name in names])
        index_article(article)
    return article


def render_body(body: str) -> str:
    """Render an article's text to safe HTML. Raises ValidationError for one that is refused, with the reason."""
    _check_length(body)
    try:
        return render_markdown(body)
    except TooMuchMarkup as error:
        raise _too_much_markup() from error


def check_body(body: str) -> None:
    """Raise the ValidationError that `render_body` would, without rendering."""
    _check_length(body)
    try:
        check_markdown(body)
    except TooMuchMarkup as error:
        raise _too_much_markup() from error


def _check_length(body: str) -> None:
    if len(body) > MAX_BODY_CHARACTERS:
        raise ValidationError(
            _("正文有 %(count)d 字，最多 %(limit)d 字。请删去一些或分成两篇。")
            % {"count": len(body), "limit": MAX_BODY_CHARACTERS}
        )


def _too_much_markup() -> ValidationError:
    return ValidationError(
        _("正文里的括号、引用、列表或表格太多太密，排版超过了 %(limit)d 步的上限。请删去一些或分成两篇。")
        % {"limit": MAX_STEPS}
    )


def publish_article(*, article: Article) -> Article:
    """Show an article to everybody; publishing it again keeps the date of the first time."""
    article.status = Article.Status.PUBLISHED
    _date_publication(article)
    with transaction.atomic():
        article.save(update_fields=["status", "published_at", "updated_at"])
        index_article(article)
    return article


def decide_publication(article: Article, *, action: str, at: datetime | None) -> None:
    """Set an article's state as its writer decides: `publish` now, `schedule` at a time, or leave it a draft."""
    if action == "schedule":
        article.status, article.published_at = Article.Status.PUBLISHED, at
        return
    if article.published_at is not None and article.published_at > timezone.now():
        article.published_at = None  # a time that was set and has not come
    article.status = Article.Status.PUBLISHED if action == "publish" else Article.Status.DRAFT


def _date_publication(article: Article) -> None:
    if article.status == Article.Status.PUBLISHED and article.published_at is None:
        article.published_at = timezone.now()


def withdraw_article(*, article: Article) -> Article:
    """Make an article a draft again. One that was public keeps its date, one that waited for its time does not."""
    decide_publication(article, action="draft", at=None)
    with transaction.atomic():
        article.save(update_fields=["status", "published_at", "updated_at"])
        index_article(article)
    return article


def delete_article(*, article: Article) -> None:
    """Delete an article with its comments, and with what was learnt from them; twice does no harm.

    Its pictures go with the others that nothing names.
    """
    with transaction.atomic():
        remove_article(article_id=article.pk)
        Article.objects.filter(pk=article.pk).delete()


def render_articles(*, dry_run: bool = False) -> int:
    """Render all articles anew, after a change of the renderer; gives how many came out otherwise.

    `updated_at` stays: the text is the one its author wrote.
    """
    changed = 0
    for article in Article.objects.only("title", "summary", "status", "body_markdown", "body_html").iterator(
        200
    ):
        try:
            body_html = render_markdown(article.body_markdown)
        except TooMuchMarkup as error:
            logger.warning("article %d keeps the HTML it has: %s", article.pk, error)
            continue
        if body_html == article.body_html:
            continue
        changed += 1
        if dry_run:
            continue
        with transaction.atomic():
            # Not over what somebody saves meanwhile.
            fresh = Article.objects.filter(pk=article.pk, body_markdown=article.body_markdown)
            if fresh.update(body_html=body_html):
                article.body_html = body_html
                index_article(article)
                touch_page(article.pk)
    return changed


def remove_unused_images(*, age: timedelta, dry_run: bool = False) -> int:
    """Remove pictures that no article and no draft names, and that are older than `age`; gives how many.

    Reads every article once, and so is never wrong about a use that nobody has counted.
    """
    used: set[str] = set()
    for body in Article.objects.values_list("body_markdown", flat=True).iterator(200):
        used |= find_digests(body)
    covers = set(Article.objects.exclude(cover=None).values_list("cover", flat=True))
    for fields in Draft.objects.values_list("fields", flat=True).iterator(200):
        used |= find_digests(str(fields.get("body_markdown", "")))
        covers |= {int(cover) for cover in [str(fields.get("cover") or "")] if cover.isdecimal()}
    unused = Image.objects.older_than(age).exclude(digest__in=used).exclude(pk__in=covers)
    return unused.count() if dry_run else delete_images(images=unused)


def clean_tag_names(tags: Sequence[str]) -> list[str]:
    """Give tag names in their order, trimmed, without blanks and without repeating one in another case.

    Raises ValidationError for more than an article may have, and for one that is longer than a tag may be.
    """
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
    if len(names) > MAX_TAGS:
        raise ValidationError(TOO_MANY_TAGS % {"show_value": len(names), "limit_value": MAX_TAGS})
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


def _keep_old_slug(article: Article, before: str | None) -> None:
    """Let the address that an article had lead to it, and give up the one it takes again."""
    if before is None or before == article.slug:
        return
    OldSlug.objects.filter(slug=article.slug, article=article).delete()
    OldSlug.objects.update_or_create(slug=before, defaults={"article": article})


def is_slug_taken(slug: str, *, article: Article) -> bool:
    """Whether another article has this address, or had it."""
    return (
        Article.objects.filter(slug=slug).exclude(pk=article.pk).exists()
        or OldSlug.objects.filter(slug=slug).exclude(article=article.pk).exists()
    )


def _save_under_free_slug(article: Article) -> None:
    if article.slug:
        article.save()
        return
    # Without end: a random slug is free sooner or later, and what else may clash is raised.
    title = spell_in_pinyin(article.title)
    for slug in _slug_candidates(title, fallback="article", max_length=_max_length(Article, "slug")):
        if is_slug_taken(slug, article=article):
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


def spell_in_pinyin(text: str) -> str:
    """Give a text in letters: Chinese in pinyin, a syllable a word; at most MAX_SLUG_WORDS words."""
    from pypinyin import lazy_pinyin  # here, as it reads its dictionaries when it is imported

    syllables = lazy_pinyin(re.sub(r"\W+", " ", text), errors=lambda rest: f" {rest} ")
    ascii_words = slugify(" ".join(syllables)).replace("_", "-").split("-")
    return "-".join(filter(None, ascii_words[:MAX_SLUG_WORDS]))


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
