"""Every address of the blog that can be read, found by its routes, with what the tables hold filled in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from django.contrib import admin
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse

from blog_site.articles.models import Article, Category, Tag
from blog_site.comments.models import Comment
from blog_site.users.models import User

from .payloads import BUNCHES

NOT_BY_ITSELF = {"admin:autocomplete"}  # Django's own, which fails without what its page's script sends
AT_MOST = 4  # addresses of one route: what differs between two rows is what stands in them


def readable_addresses() -> Iterator[tuple[str, str]]:
    """Give the name of each route outside the admin with its addresses."""
    for name, pattern in _routes(get_resolver()):
        if name.startswith("admin:"):
            continue
        names = sorted(pattern.pattern.converters or pattern.pattern.regex.groupindex)
        for values in itertools.islice(itertools.product(*(_values(name, each) for each in names)), AT_MOST):
            yield name, _reverse(name, dict(zip(names, values, strict=True)))


def admin_addresses() -> Iterator[tuple[str, str]]:
    """Give the addresses of each table's pages, and of what else the admin has without a table."""
    for name, pattern in _routes(get_resolver()):
        filled_in = not pattern.pattern.converters and not pattern.pattern.regex.groups
        if name.startswith("admin:") and filled_in and name not in NOT_BY_ITSELF:
            yield name, reverse(name)
    for model in admin.site._registry:
        row = model._default_manager.order_by("pk").last()
        for action in ("change", "delete") if row is not None else ():
            yield _action(model, action), reverse(_action(model, action), args=[row.pk])
    yield (
        _action(Article, "history"),
        reverse(_action(Article, "history"), args=[Article.objects.latest("pk").pk]),
    )
    for label in {model._meta.app_label for model in admin.site._registry}:
        yield "admin:app_list", reverse("admin:app_list", args=[label])


def addresses_with_payloads() -> Iterator[str]:
    """Give pages that show what stands in their own address, or go where it says."""
    article = Article.objects.filter(comments=None).published().latest("pk").get_absolute_url()
    for bunch in BUNCHES:
        written = quote(bunch, safe="")
        yield f"/search/?q={written}"
        yield f"/sign-in/?next={written}"
        yield f"/{written}"
    written = quote(BUNCHES[0], safe="")
    yield from (
        f"/articles/{written}/",
        f"/?page={written}",
        f"/archive/?year={written}",
        f"/sign-up/?next={written}",
        f"/api/v1/search/?q={written}",
        f"/api/v1/articles/?cursor={written}",
        f"/api/v1/{written}",
        f"{article}?comment={written}&reply={written}&page={written}&order={written}",
        f"/admin/comments/comment/?q={written}",
        f"/admin/login/?next={written}",
    )


def _action(model: Any, action: str) -> str:
    return f"admin:{model._meta.app_label}_{model._meta.model_name}_{action}"


def _routes(resolver: URLResolver, namespaces: tuple[str, ...] = ()) -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            inner = (pattern.namespace,) if pattern.namespace else ()
            yield from _routes(pattern, (*namespaces, *inner))
        elif pattern.name:
            yield ":".join([*namespaces, pattern.name]), pattern


def _values(route: str, name: str) -> list[Any]:
    """What a part of an address may be: rows of each table that might be meant."""
    if name == "slug":
        published = Article.objects.published().order_by("pk")
        slugs = [published.first(), published.last(), Category.objects.last(), Tag.objects.last()]
        return sorted((row.slug for row in slugs), key=lambda slug: not _is_meant(route, slug))
    if name == "username":
        return [User.objects.get(username="writer").username]
    if name == "section":
        return ["articles", "categories"]
    if name in ("pk", "id") or name.endswith("_id"):
        comments = list(Comment.objects.order_by("pk").values_list("pk", flat=True))
        return [comments[0], comments[-1], 1]
    return ["x"]


def _is_meant(route: str, slug: str) -> bool:
    for table, word in ((Category, "categor"), (Tag, "tag")):
        if table.objects.filter(slug=slug).exists():
            return word in route
    return "categor" not in route and "tag" not in route


def _reverse(name: str, values: dict[str, Any]) -> str:
    try:
        return reverse(name, kwargs=values)
    except NoReverseMatch as error:
        raise AssertionError(
            f"tests/injection/routes.py does not know how to fill in {name}: {error}"
        ) from error
