"""The words under which a text is found, in Chinese and Latin script; no database has to cut anything.

Of Chinese, Japanese and Korean, whose words have no visible bounds, each character is a word and each two neighbours
are one: 处理 is one of 待处理's pairs. A longer run is looked up as its pairs, and whether they stand in a row is read
in the text. Of everything else that is a letter or a digit, each beginning is a word, in lower case: django is found
as djan. So whatever is asked, words are looked up as they are, never ranges of them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_QUERY_CHARACTERS: Final = 80
MAX_PHRASES: Final = 8
LONGEST_BEGINNING: Final = 12  # characters of a Latin word that are looked up; the text says how it goes on

_CJK: Final = (
    "\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af"
)
_LETTER: Final = rf"[^\W_{_CJK}]"
_ONE_CJK: Final = re.compile(f"[{_CJK}]")
_RUNS: Final = re.compile(rf"[{_CJK}]+|{_LETTER}+")


@dataclass(frozen=True)
class Phrase:
    """A run of a query, in lower case."""

    run: str

    def words(self) -> list[str]:
        """The words of every text in which the phrase stands."""
        if not self.is_cjk():
            return [self.run[:LONGEST_BEGINNING]]
        return list(map(str.__add__, self.run, self.run[1:])) or [self.run]

    def is_cjk(self) -> bool:
        """Whether it is of characters that are words; a run is of one kind."""
        return _is_cjk(self.run[0])

    def is_long(self) -> bool:
        """Whether a text may have all the words, and still not the phrase."""
        return len(self.run) > (2 if self.is_cjk() else LONGEST_BEGINNING)

    def begins_a_word_of(self, text: str) -> bool:
        """Whether a word of a text, in lower case, begins with the phrase, which is none of characters."""
        return re.search(_begins_with(self.run), text) is not None


def make_words(text: str) -> set[str]:
    """Give the words of a text."""
    words: set[str] = set()
    for run in set(_RUNS.findall(text.casefold())):
        words.update(_words_of_run(run))
    return words


def _words_of_run(run: str) -> Iterator[str]:
    if not _is_cjk(run[0]):
        yield from itertools.accumulate(run[:LONGEST_BEGINNING])
        return
    yield from run
    yield from map(str.__add__, run, run[1:])


def _is_cjk(character: str) -> bool:
    return _ONE_CJK.match(character) is not None


def parse_query(text: str) -> list[Phrase]:
    """Give the phrases of a query, all of which must be found. Words that are no words at all are left out."""
    runs = dict.fromkeys(_RUNS.findall(text[:MAX_QUERY_CHARACTERS].casefold()))
    return [Phrase(run) for run in runs][:MAX_PHRASES]


def match_hits(query: str) -> re.Pattern[str] | None:
    """Give the pattern of what a query finds in a text, the longest first; None where it asks for nothing."""
    runs = sorted(set(_RUNS.findall(query[:MAX_QUERY_CHARACTERS])), key=len, reverse=True)
    parts = [re.escape(run) if _is_cjk(run[0]) else f"{_begins_with(run)}{_LETTER}*" for run in runs]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _begins_with(run: str) -> str:
    # A Latin word is found by its beginning; within another word it was not found.
    return rf"(?<!{_LETTER}){re.escape(run)}"
