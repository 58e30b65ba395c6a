"""The echo of an article: how the sentiments of its comments are distributed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.core.cache import cache
from django.db.models import Count, Exists, F, OuterRef

from .hot import KEPT_SECONDS, page_versions
from .models import Article

LABELS = ("positive", "neutral", "negative")  # from left to right


@dataclass(frozen=True)
class Echo:
    """How many visible comments an article has, and what the model says of their present texts."""

    comments: int = 0
    negative: int = 0
    neutral: int = 0
    positive: int = 0

    @property
    def waiting(self) -> int:
        return max(0, self.comments - self.scored)

    @property
    def scored(self) -> int:
        return self.negative + self.neutral + self.positive

    def bars(self) -> list[Bar]:
        """The three parts of the strip from left to right; all of no width while no comment is scored."""
        bars, start = [], 0.0
        for label in LABELS:
            width = 100 * getattr(self, label) / max(self.scored, 1)
            bars.append(Bar(label=label, start=start, width=width))
            start += width
        return bars


@dataclass(frozen=True)
class Bar:
    """One part of the strip; `start` and `width` are percentages of it."""

    label: str
    start: float
    width: float


def listen(articles: Iterable[Article]) -> dict[int, Echo]:
    """Give the echo of each article, by article id, in three queries however many articles there are.

    What was counted under the present version of an article's page is taken from the cache.
    """
    ids = [article.pk for article in articles]
    keys = {f"echo:{pk}:{version}": pk for pk, version in page_versions(ids).items()}
    kept: dict[str, Echo] = cache.get_many(keys)
    echoes = {keys[key]: echo for key, echo in kept.items()}
    missing = [pk for pk in ids if pk not in echoes]
    if missing:
        counted = _count(missing)
        fresh = {key: counted.get(pk, Echo()) for key, pk in keys.items() if key not in kept}
        cache.set_many(fresh, KEPT_SECONDS)
        echoes |= counted
    return echoes


def _count(article_ids: Sequence[int]) -> dict[int, Echo]:
    """Count echoes in two queries, the second where there are comments.

    Comments are reached by the names of their relations: articles come before comments in the tree and import
    nothing from there.
    """
    comment_model = Article._meta.get_field("comments").related_model
    prediction_model = comment_model._meta.get_field("predictions").related_model
    shown = comment_model.objects.order_by().filter(article__in=article_ids, status="visible")
    comments = dict(shown.values_list("article").annotate(n=Count("pk")))
    if not comments:
        return {}
    present = prediction_model.objects.order_by().filter(
        comment__article__in=comments,
        comment__status="visible",
        text_digest=F("comment__text_digest"),
    )
    # By an index for each comment; the newest of all comments at once would be a scan of all there are.
    newer = prediction_model.objects.filter(
        comment=OuterRef("comment"), text_digest=OuterRef("text_digest"), pk__gt=OuterRef("pk")
    )
    scored: dict[int, dict[str, int]] = {}
    by_label = present.filter(~Exists(newer)).values_list("comment__article", "label")
    for article_id, label, count in by_label.annotate(n=Count("pk")):
        scored.setdefault(article_id, {})[label] = count
    return {
        article_id: Echo(comments=count, **scored.get(article_id, {}))
        for article_id, count in comments.items()
    }
