"""Criticism worth answering, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blog_site.comments.models import BlockedWord, Comment
from blog_site.comments.rules import contains_word
from blog_site.users.models import User

from .received import received_comments

PAGE_SIZE: Final = 8
LOOKED_AT: Final = 60  # so many at most, for a page; what is not fit to be shown is among them

# Said to or of a person, whatever it is about; harsh words for a thing are not here.
INSULTS: Final = (
    "傻逼", "傻比", "煞笔", "傻子", "脑残", "智障", "弱智", "白痴", "蠢货", "蠢猪", "猪脑子", "人渣", "畜生", "贱人",
    "王八蛋", "混蛋", "滚蛋", "滚粗", "滚出去", "去死吧", "不要脸", "他妈的", "草泥马", "狗东西", "死全家",
    "sb", "cnm", "nmsl", "idiot", "idiots", "moron", "morons", "asshole", "bitch", "retard", "retarded", "fuck", "fucking",
    "kill yourself",
)  # fmt: skip


@dataclass(frozen=True)
class Criticism:
    """Comments that a writer would do well to answer; `after` asks for those that follow."""

    comments: list[Comment]
    after: int | None


def find_criticism(writer: User, *, after: str = "") -> Criticism:
    """Find comments, newest first; `after` is the id at which the page before ended."""
    received = received_comments().worth_answering_by(writer)
    last = _find_last(writer, after)
    if last is not None:
        received = received.older_than_comment(last)
    looked_at = list(
        received.select_related("author", "article")
        .defer("article__body_markdown", "article__body_html")
        .prefetch_related(None)[: LOOKED_AT + 1]
    )
    unfit = [*INSULTS, *BlockedWord.objects.values_list("word", flat=True)]
    fit = [comment for comment in looked_at[:LOOKED_AT] if not attacks(comment.text, unfit)]
    shown = fit[:PAGE_SIZE]
    if len(fit) > PAGE_SIZE:
        return Criticism(shown, shown[-1].pk)
    return Criticism(shown, looked_at[LOOKED_AT - 1].pk if len(looked_at) > LOOKED_AT else None)


def attacks(text: str, words: Iterable[str]) -> bool:
    """Whether a text holds a word with which nobody wants to argue."""
    return any(contains_word(text, word) for word in words)


def _find_last(writer: User, after: str) -> Comment | None:
    """The comment that a page ended with, answered meanwhile or not; None where there is no such one."""
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        return None
    return received_comments().filter(article__author=writer, pk=int(after)).only("created_at").first()
