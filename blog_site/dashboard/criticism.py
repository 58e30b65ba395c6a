"""Criticism worth answering, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from blog_site.comments.models import BlockedWord, Comment
from blog_site.comments.tone import INSULTS, holds_any
from blog_site.users.models import User

from .received import received_comments

PAGE_SIZE: Final = 8
LOOKED_AT: Final = 300  # comments with something in them, for one page; few of them are negative


@dataclass(frozen=True)
class Criticism:
    """Comments that a writer would do well to answer; `after` asks for those that follow."""

    comments: list[Comment]
    after: int | None


def find_criticism(writer: User, *, after: str = "") -> Criticism:
    """Find comments, newest first; `after` is the id at which the page before ended.

    What costs little to know narrows them first, so that a sentiment is looked up for a fixed number of comments,
    however many there are.
    """
    candidates = received_comments().from_readers_of(writer).substantial()
    last = _find_last(writer, after)
    if last is not None:
        candidates = candidates.older_than_comment(last)
    looked_at = list(candidates.values_list("pk", flat=True)[: LOOKED_AT + 1])
    fit = list(islice(_fit_to_be_shown(writer, looked_at[:LOOKED_AT]), PAGE_SIZE + 1))
    if len(fit) > PAGE_SIZE:
        return Criticism(fit[:PAGE_SIZE], fit[PAGE_SIZE - 1].pk)
    return Criticism(fit, looked_at[LOOKED_AT - 1] if len(looked_at) > LOOKED_AT else None)


def _fit_to_be_shown(writer: User, comment_ids: list[int]) -> Iterator[Comment]:
    found = received_comments().filter(pk__in=comment_ids).critical().unanswered_by(writer)
    unfit = [*INSULTS, *BlockedWord.objects.values_list("word", flat=True)]
    for comment in (
        found.select_related("author", "article")
        .defer("article__body_markdown", "article__body_html")
        .order_by("-created_at", "-pk")
    ):
        if not holds_any(comment.text, unfit):
            yield comment


def _find_last(writer: User, after: str) -> Comment | None:
    """The comment that a page ended with, answered meanwhile or not; None where there is no such one."""
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        return None
    return received_comments().filter(article__author=writer, pk=int(after)).only("created_at").first()
