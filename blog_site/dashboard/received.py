"""The comments that readers left under a writer's articles, and how often these were opened: which rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, TypeVar

from django.db.models import Case, Count, Exists, F, OuterRef, Q, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from blog_site.articles.echo import Echo
from blog_site.articles.models import Article, ArticleViews
from blog_site.comments.models import Comment, CommentQuerySet, Prediction, Sentiment
from blog_site.labels.models import Intent, Label, Source
from blog_site.users.models import User

from .figures import WAITING, Period, make_echo

TOXIC: Final = 0.5  # what the language model takes for an attack on somebody
SUBSTANTIAL: Final = 0.3  # of `constructiveness`: some sentences, or a short one with its reasons
Key = TypeVar("Key")

# Who reads better than the model; the lexicon, which reads worse, is asked where the model has not spoken.
BETTER_READERS = (Source.MODERATOR, Source.LLM)


class ReceivedComments(CommentQuerySet):
    def from_readers_of(self, writer: User) -> ReceivedComments:
        """What others wrote, and everybody can see, under a writer's articles."""
        return self.visible().filter(article__author=writer).exclude(author=writer)

    def within(self, first: date, last: date) -> ReceivedComments:
        """Those of these days, in the blog's own time zone."""
        return self.filter(
            created_at__gte=_start_of(first), created_at__lt=_start_of(last + timedelta(days=1))
        )

    def with_sentiment(self) -> ReceivedComments:
        """Say of each how its present text reads: after who read it best, or `waiting`."""
        said = Prediction.objects.filter(comment=OuterRef("pk"), text_digest=OuterRef("text_digest"))
        accepted = Q(sample__text_digest=F("text_digest"))
        return self.annotate(
            sentiment=Coalesce(
                Case(When(accepted & Q(sample__source__in=BETTER_READERS), then=F("sample__label"))),
                Subquery(said.order_by("-pk").values("label")[:1]),
                Case(When(accepted, then=F("sample__label"))),
                Value(WAITING),
            )
        )

    def echoes_by_day(self) -> dict[date, Echo]:
        """Count them by day.

        Days are cut by adding the zone's present distance from UTC: the database's own way needs time zones that MySQL
        and MariaDB come without.
        """
        distance = timezone.localtime(timezone=timezone.get_default_timezone()).utcoffset() or timedelta()
        day = TruncDate(F("created_at") + distance, tzinfo=UTC)
        counted = self.with_sentiment().order_by().annotate(day=day).values_list("day", "sentiment")
        return _gather(counted.annotate(n=Count("pk")))

    def echoes_by_article(self) -> dict[int, Echo]:
        counted = self.with_sentiment().order_by().values_list("article", "sentiment")
        return _gather(counted.annotate(n=Count("pk")))

    def substantial(self) -> ReceivedComments:
        """Those with something in them, that nobody has reported and that can be answered; newest first."""
        return self.filter(
            constructiveness__gte=SUBSTANTIAL,
            report_count=0,
            article__status=Article.Status.PUBLISHED,
            article__published_at__lte=timezone.now(),
            article__comments_open=True,
        ).order_by("-created_at", "-pk")

    def critical(self) -> ReceivedComments:
        """Those that read negative and that the language model takes for no attack and no advertisement."""
        attacks = Label.objects.filter(
            Q(toxicity__gte=TOXIC) | Q(intent=Intent.SPAM),
            comment=OuterRef("pk"),
            text_digest=OuterRef("text_digest"),
        )
        return self.with_sentiment().filter(~Exists(attacks), sentiment=Sentiment.NEGATIVE)

    def unanswered_by(self, writer: User) -> ReceivedComments:
        answers = Comment.objects.visible().filter(parent=OuterRef("pk"), author=writer)
        return self.filter(~Exists(answers))

    def older_than_comment(self, comment: Comment) -> ReceivedComments:
        """What comes after a comment in the order of `substantial`."""
        at = comment.created_at
        return self.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=comment.pk))


def received_comments() -> ReceivedComments:
    return ReceivedComments(Comment)


def views_by_day(writer: User, first: date, last: date) -> dict[date, int]:
    rows = ArticleViews.objects.filter(article__author=writer, day__gte=first, day__lte=last)
    return dict(rows.order_by().values_list("day").annotate(n=Sum("views")))


def views_by_article(writer: User, period: Period) -> dict[int, int]:
    rows = ArticleViews.objects.filter(article__author=writer, day__gte=period.first, day__lte=period.last)
    return dict(rows.order_by().values_list("article").annotate(n=Sum("views")))


def today() -> date:
    return timezone.localdate(timezone=timezone.get_default_timezone())


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=timezone.get_default_timezone())


def _gather(rows: Iterable[tuple[Key, str, int]]) -> dict[Key, Echo]:
    counts: dict[Key, dict[str, int]] = {}
    for key, sentiment, count in rows:
        counts.setdefault(key, {})[sentiment] = count
    return {key: make_echo(of_key) for key, of_key in counts.items()}
