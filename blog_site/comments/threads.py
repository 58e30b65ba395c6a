"""A thread in pages: what answers an article, or one comment, in an order, with the first replies below each.

Pages go by key, not by number: they stay right while others write, and the five hundredth costs what the first does.
However long a thread is, a page takes one query a level and one for all predictions on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import (
    BooleanField,
    Exists,
    F,
    OuterRef,
    Prefetch,
    Q,
    Value,
    Window,
    prefetch_related_objects,
)
from django.db.models.functions import RowNumber

from blog_site.articles.models import Article

from .models import Comment, CommentQuerySet, Like, Prediction, is_moderator

PAGE_SIZE: Final = 20
FIRST_REPLIES: Final = (3, 2)  # shown below each comment, level by level; what comes after is a link
ANCESTORS_SHOWN: Final = 3  # above a comment that is looked at by itself


@dataclass(frozen=True)
class Order:
    """A way to sort a thread: by this column, then by id."""

    name: str
    column: str
    descending: bool

    def sort(self) -> list[str]:
        sign = "-" if self.descending else ""
        return [f"{sign}{self.column}", f"{sign}id"]


NEWEST = Order("newest", "created_at", descending=True)
OLDEST = Order("oldest", "created_at", descending=False)
CONSTRUCTIVE = Order("constructive", "constructiveness", descending=True)
ORDERS: Final = {order.name: order for order in (NEWEST, OLDEST, CONSTRUCTIVE)}


@dataclass(frozen=True)
class Reader:
    """Who reads: `guests_own` are the comments that this browser has written without an account."""

    user: AbstractBaseUser | AnonymousUser
    guests_own: Collection[int] = ()


@dataclass(frozen=True)
class Node:
    """A comment in its place: what a page shows of it, and the first of what answers it."""

    comment: Comment
    is_placeholder: bool  # not to be read; it stands for the replies below
    is_own: bool
    is_liked: bool
    may_edit: bool
    replies: tuple[Node, ...] = ()
    has_more: bool = False
    after: str = ""  # where the rest of the replies begin

    @property
    def rest(self) -> int:
        """How many replies others can see that are not here; 0 where only one's own wait."""
        here = sum(node.is_placeholder or node.comment.is_visible() for node in self.replies)
        return max(0, self.comment.shown_replies - here)


@dataclass(frozen=True)
class Page:
    """A page of a thread."""

    nodes: tuple[Node, ...]
    order: Order
    next_after: str = ""  # the key from which the next page begins; empty on the last

    def comments(self) -> list[Comment]:
        """The comments of the first level."""
        return [node.comment for node in self.nodes]


class BadCursor(ValueError):
    """A key that none of our pages gave out."""


def page_of(
    under: Article | Comment,
    *,
    order: str,
    after: str = "",
    reader: Reader,
    starting_with: Comment | None = None,
    size: int = PAGE_SIZE,
) -> Page:
    """Give a page of what answers an article or a comment, after a key, or from a comment on. Raises BadCursor."""
    sort = ORDERS[order]
    rows = list(
        _continue(_answers(under, reader), sort, after, starting_with).order_by(*sort.sort())[: size + 1]
    )
    shown, more = rows[:size], len(rows) > size
    nodes = _grow(shown, reader, FIRST_REPLIES)
    _fetch_predictions(nodes)
    return Page(nodes, sort, next_after=key_of(shown[-1], sort) if more else "")


def path_to(comment: Comment, page: Page, *, reader: Reader) -> Node:
    """Put a page of a comment's replies below it, and it below what it answers, a few levels up."""
    related = [f"{'parent__' * level}author" for level in range(ANCESTORS_SHOWN + 1)]
    chain = [Comment.objects.select_related(*related).get(pk=comment.pk)]
    while (above := _loaded_parent(chain[-1])) is not None:
        chain.append(above)
    _mark_liked(chain, reader)
    shown = [_node(one, reader) for one in chain]
    _fetch_predictions(shown)
    path = replace(shown[0], replies=page.nodes, has_more=bool(page.next_after), after=page.next_after)
    for above in shown[1:]:
        path = replace(above, replies=(path,))
    return path


def node_of(comment: Comment, *, reader: Reader) -> Node:
    """One comment by itself, with what this reader may do with it; its predictions are fetched already."""
    return _node(comment, reader)


def listed(reader: Reader) -> Q:
    """What has a place on a reader's page: what is visible, stands for visible replies, or is theirs and waits."""
    shown = Q(status=Comment.Status.VISIBLE) | Q(shown_replies__gt=0)
    waits = Q(status=Comment.Status.PENDING)
    if is_moderator(reader.user):
        return shown | waits
    if reader.user.is_authenticated:
        shown |= waits & Q(author=reader.user)
    if reader.guests_own:
        shown |= waits & Q(author=None, pk__in=reader.guests_own)
    return shown


def with_likes(comments: CommentQuerySet, reader: Reader) -> CommentQuerySet:
    """Add to each comment whether the reader likes it: `is_liked`."""
    if not reader.user.is_authenticated:
        return comments.annotate(is_liked=Value(False, output_field=BooleanField()))
    return comments.annotate(is_liked=Exists(Like.objects.filter(comment=OuterRef("pk"), user=reader.user)))


def key_of(comment: Comment, order: Order) -> str:
    """Name a comment's place in an order."""
    value = getattr(comment, order.column)
    place = str(_microseconds(value)) if isinstance(value, datetime) else repr(value)
    return f"{place}_{comment.pk}"


def continue_after(
    comments: CommentQuerySet, order: Order, after: str = "", *, back: bool = False
) -> CommentQuerySet:
    """Sort comments, and leave out what stands before a key; `back`: the other way round. Raises BadCursor."""
    sort = replace(order, descending=order.descending != back)
    return _continue(comments, sort, after, None).order_by(*sort.sort())


def _answers(under: Article | Comment, reader: Reader) -> CommentQuerySet:
    if isinstance(under, Article):
        answers = Comment.objects.filter(article=under, parent=None)
    else:
        answers = Comment.objects.filter(article_id=under.article_id, parent=under)
    return _for_reader(answers.filter(listed(reader)), reader)


def _for_reader(comments: CommentQuerySet, reader: Reader) -> CommentQuerySet:
    return with_likes(comments.select_related("author"), reader)


def _continue(comments: CommentQuerySet, order: Order, after: str, start: Comment | None) -> CommentQuerySet:
    if start is not None:
        return _beyond(comments, order, getattr(start, order.column), start.pk, inclusive=True)
    if not after:
        return comments
    value, comment_id = _read_key(after, order)
    return _beyond(comments, order, value, comment_id, inclusive=False)


def _beyond(
    comments: CommentQuerySet, order: Order, value: Any, comment_id: int, *, inclusive: bool
) -> CommentQuerySet:
    way = "lt" if order.descending else "gt"
    id_way = f"{way}e" if inclusive else way
    # The first condition follows from the second; by itself it is a range of the index.
    return comments.filter(**{f"{order.column}__{way}e": value}).filter(
        Q(**{f"{order.column}__{way}": value}) | Q(**{order.column: value, f"id__{id_way}": comment_id})
    )


def _read_key(key: str, order: Order) -> tuple[Any, int]:
    place, _, comment_id = key.partition("_")
    try:
        if len(key) > 60 or not key.isascii() or not comment_id.isdigit():
            raise ValueError(key)
        number = min(int(comment_id), 2**63 - 1)
        if order.column == "created_at":
            return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(place)), number
        value = float(place)
        if not 0 <= value <= 1:
            raise ValueError(place)
    except (ValueError, OverflowError) as error:
        raise BadCursor(
            f"{key!r:.80} is no place in the order {order.name!r}: begin at the first page"
        ) from error
    return value, number


def _grow(comments: Sequence[Comment], reader: Reader, levels: Sequence[int]) -> tuple[Node, ...]:
    """Put the first replies below each comment, a query a level."""
    below: dict[int, list[Comment]] = {}
    if levels and any(_may_have_replies(comment) for comment in comments):
        parents = [comment for comment in comments if _may_have_replies(comment)]
        for reply in _first_replies(parents, reader, levels[0]):
            below.setdefault(reply.parent_id or 0, []).append(reply)
    kept = [reply for replies in below.values() for reply in replies[: levels[0]]]
    nodes: dict[int, list[Node]] = {}
    for node in _grow(kept, reader, levels[1:]) if kept else ():
        nodes.setdefault(node.comment.parent_id or 0, []).append(node)
    return tuple(
        _with_replies(_node(comment, reader), nodes.get(comment.pk, ()), len(below.get(comment.pk, ())))
        for comment in comments
    )


def _may_have_replies(comment: Comment) -> bool:
    """Whether to look below a comment; who waits below one that nobody else has answered is looked for as well."""
    return comment.is_visible() or comment.shown_replies > 0


def _with_replies(node: Node, replies: Iterable[Node], found: int) -> Node:
    shown = tuple(replies)
    if not shown:  # not looked for: the levels end here
        return replace(node, has_more=node.comment.shown_replies > 0)
    return replace(node, replies=shown, has_more=found > len(shown), after=key_of(shown[-1].comment, OLDEST))


def _first_replies(parents: Sequence[Comment], reader: Reader, limit: int) -> Iterable[Comment]:
    """The oldest replies to each of several comments of one article, one more than are shown."""
    place = Window(RowNumber(), partition_by=F("parent_id"), order_by=["created_at", "id"])
    ids = (
        Comment.objects.filter(article_id=parents[0].article_id, parent__in=[parent.pk for parent in parents])
        .filter(listed(reader))
        .annotate(place=place)
        .filter(place__lte=limit + 1)
        .order_by()
        .values("pk")
    )
    return _for_reader(Comment.objects.filter(pk__in=ids), reader).order_by("created_at", "id")


def _node(comment: Comment, reader: Reader) -> Node:
    own = _is_own(comment, reader)
    readable = comment.is_visible() or (comment.is_pending() and (own or is_moderator(reader.user)))
    return Node(
        comment=comment,
        is_placeholder=not readable,
        is_own=own,
        is_liked=bool(getattr(comment, "is_liked", False)),
        may_edit=readable and comment.may_be_edited_by(reader.user),
    )


def _is_own(comment: Comment, reader: Reader) -> bool:
    if comment.author_id is None:
        return comment.pk in reader.guests_own
    return comment.author_id == reader.user.pk


def _fetch_predictions(nodes: Iterable[Node]) -> None:
    comments = list(_all_comments(nodes))
    newest_first = Prediction.objects.order_by("-id").defer("probabilities")
    prefetch_related_objects(
        comments, Prefetch("predictions", newest_first, to_attr="predictions_newest_first")
    )


def _all_comments(nodes: Iterable[Node]) -> Iterable[Comment]:
    for node in nodes:
        yield node.comment
        yield from _all_comments(node.replies)


def _mark_liked(comments: Sequence[Comment], reader: Reader) -> None:
    if reader.user.is_authenticated:
        liked = set(
            Like.objects.filter(comment__in=comments, user=reader.user).values_list("comment", flat=True)
        )
        for comment in comments:
            comment.is_liked = comment.pk in liked


def _loaded_parent(comment: Comment) -> Comment | None:
    """The parent, where it was fetched together with the comment."""
    return (
        comment.parent if comment.parent_id is not None and "parent" in comment._state.fields_cache else None
    )


def _microseconds(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
