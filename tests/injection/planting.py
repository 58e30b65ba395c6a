"""A blog in which every text that anybody could have written is a payload: found by the models, not by a list."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django.apps import apps
from django.db import models
from django.utils import timezone

from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from blog_site.users.models import User
from tests.blog import make_article, make_comment, make_prediction, make_user
from tests.training.rows import make_digest, make_report, make_run, make_version

from .payloads import PAYLOADS

# Texts that we make ourselves and that mean something to the program.
OURS = {
    "username", "password", "email", "body_html", "title_words", "all_words", "key", "split", "trigger", "actor",
    "post_data", "get_data", "session_hash", "sort_key",
}  # fmt: skip


def plant() -> Article:
    """Fill the blog with payloads; gives the article under which most comments stand."""
    article = _make_rows()
    for model in _models():
        if _free_texts(model) and not model.objects.exists():
            _make_row(model)
    for model in _models():
        _overwrite_texts(model)
    for planted in Article.objects.all():
        save_article(article=planted, tags=[text[:40] for text in PAYLOADS[planted.pk % 5 :: 5]])
    article.refresh_from_db()
    return article


def _make_rows() -> Article:
    writer = make_user("writer")
    make_user("reader")
    make_user("admin", is_staff=True, is_superuser=True)
    make_article("草稿", author=writer, draft=True)
    articles = [make_article(f"文章 {number}", author=writer) for number in range(4)]
    for number in range(len(PAYLOADS)):
        comment = make_comment(articles[0], f"评论 {number}", minutes_ago=number)
        if number % 2:
            make_prediction(comment)
    make_comment(articles[1], author=writer)
    _make_run()
    return articles[0]


def _make_run() -> None:
    """A run that has ended, since only of such a one the page shows everything."""
    version = make_version(make_digest())
    refusal = {"at": 1.0, "round": 1, "path": "/v1/rounds/1", "status": 400, "count": 2}
    make_run(
        state="promoted",
        model_version=version,
        stopped_at=timezone.now(),
        missing_sites=[PAYLOADS[1]],
        report=make_report(version.digest),
        refusals=[{**refusal, "site": PAYLOADS[0], "address": PAYLOADS[2], "reason": PAYLOADS[3]}],
    )


def _models() -> list[Any]:
    """The blog's own models that have a table, those first that others point to."""
    ours = [m for m in apps.get_models() if m.__module__.startswith("blog_site.") and not m._meta.proxy]
    return sorted(ours, key=lambda model: model._meta.label != User._meta.label)


def _make_row(model: Any, *, within: tuple[Any, ...] = ()) -> Any:
    """Make a row of a model that has none yet, with the rows it points to."""
    values = {
        field.name: _value(field, within=(*within, model))
        for field in model._meta.concrete_fields
        if not isinstance(field, models.AutoField)
        and not field.has_default()
        and not getattr(field, "auto_now_add", False)
    }
    return model.objects.create(**{name: value for name, value in values.items() if value is not None})


def _value(field: Any, *, within: tuple[Any, ...]) -> Any:
    if field.is_relation:
        related = field.related_model
        if related in within:
            return None
        return related.objects.last() or (None if field.null else _make_row(related, within=within))
    if field.choices:
        return field.choices[0][0]
    if isinstance(field, models.FileField):
        return f"{PAYLOADS[4].replace('/', '')[:60]}.png"
    for kind, value in (
        (
            (models.CharField, models.TextField),
            "x" if not field.unique else str(uuid4())[: field.max_length or 36],
        ),
        (models.BooleanField, False),
        ((models.IntegerField, models.FloatField, models.DecimalField), 1),
        (models.DateTimeField, timezone.now()),
        (models.DateField, timezone.localdate()),
        (models.JSONField, {}),
        (models.UUIDField, uuid4()),
        (models.GenericIPAddressField, "203.0.113.7"),
    ):
        if isinstance(field, kind):
            return value
    return None


def _overwrite_texts(model: Any) -> None:
    """Write into each text another payload than stands in the row before, and in the field beside it."""
    fields = _free_texts(model)
    for number, pk in enumerate(model.objects.order_by("pk").values_list("pk", flat=True)):
        texts = {field.attname: _fill(field, number + 7 * place) for place, field in enumerate(fields)}
        if texts:
            model.objects.filter(pk=pk).update(**texts)


def _fill(field: Any, number: int) -> str:
    """All payloads where there is room for them all, beginning with another one each time."""
    start = number % len(PAYLOADS)
    if isinstance(field, models.TextField):
        return "\n\n".join((*PAYLOADS[start:], *PAYLOADS[:start]))
    return PAYLOADS[start][: field.max_length]


def _free_texts(model: Any) -> list[Any]:
    return [field for field in model._meta.concrete_fields if _is_free_text(field)]


def _is_free_text(field: Any) -> bool:
    return (
        isinstance(field, (models.CharField, models.TextField))
        and not isinstance(field, (models.SlugField, models.EmailField, models.URLField))
        and not field.choices
        and not field.is_relation
        and not field.primary_key
        and field.name not in OURS
        and not field.name.endswith("digest")
    )
