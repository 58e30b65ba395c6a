"""Which comments wait for a moderator before others see them, and why; pure, for `services` to ask."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from ml.text import normalize_text

_LINK = re.compile(
    r"(?:https?|ftp)://|\bwww\.|\b[a-z0-9-]+\.(?:com|cn|net|org|top|xyz|info|cc|vip|shop|io|me)\b", re.ASCII
)
_LATIN_WORD = re.compile(r"[\w'-]+(?: [\w'-]+)*", re.ASCII)

Why = Literal["first_comments", "link", "guest", "word", "spam_word"]
BY_WORD: Final = ("word", "spam_word")


@dataclass(frozen=True)
class Facts:
    """What there is to know of a comment that somebody wants to post."""

    text: str
    by_guest: bool = False
    comments_before: int = 0  # of the same account, that others could see


class InForce(Protocol):
    """The rules as they are set; `models.Rules` is one."""

    hold_first_comments: int
    hold_links: bool
    hold_guests: bool


class Blocked(Protocol):
    """A blocked word; `models.BlockedWord` is one."""

    word: str
    action: str  # "hold" | "spam"


@dataclass(frozen=True)
class Held:
    """That a comment does not go out, and why."""

    why: Why
    word: str = ""  # the blocked one

    @property
    def is_spam(self) -> bool:
        return self.why == "spam_word"

    @property
    def reason(self) -> str:
        """The reason as a decision keeps it; `models.Decision.reason_in_words` says it in the reader's language."""
        return f"rule:{self.why}:{self.word}" if self.word else f"rule:{self.why}"


def judge(facts: Facts, rules: InForce, words: Iterable[Blocked]) -> Held | None:
    """Say what holds a comment, the gravest first; None lets it out at once."""
    found = [blocked for blocked in words if contains_word(facts.text, blocked.word)]
    for blocked in found:
        if blocked.action == "spam":
            return Held("spam_word", blocked.word)
    for blocked in found:
        return Held("word", blocked.word)
    if rules.hold_links and contains_link(facts.text):
        return Held("link")
    if facts.by_guest:
        return Held("guest") if rules.hold_guests else None
    if facts.comments_before < rules.hold_first_comments:
        return Held("first_comments")
    return None


def contains_link(text: str) -> bool:
    """Whether a text leads elsewhere: an address with its scheme, or the bare name of a site."""
    return _LINK.search(normalize_text(text)) is not None


def contains_word(text: str, word: str) -> bool:
    """Whether a text holds a word, however it is written.

    Latin words count as whole words (`ass` is not in `class`); others are found between spaces, punctuation and
    invisible characters too (`加 微.信` holds 加微信).
    """
    sought = normalize_text(word)
    if not sought:
        return False
    if _LATIN_WORD.fullmatch(sought):
        return re.search(rf"(?<![a-z0-9]){re.escape(sought)}(?![a-z0-9])", normalize_text(text)) is not None
    letters, present = _letters(sought), normalize_text(text)
    return letters in _letters(present) if letters else sought in present


def _letters(text: str) -> str:
    """Keep what can be read aloud: letters and digits, of whatever script."""
    return "".join(character for character in text if unicodedata.category(character)[0] in "LN")
