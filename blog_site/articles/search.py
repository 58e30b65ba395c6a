"""Search in Chinese and Latin script, in one way on SQLite, MariaDB and MySQL: words in a row under a full-text index.

A database cuts Chinese badly or not at all, and each one differently. So the words are made here, in ASCII, which every
full-text index takes as they are: two neighbouring Chinese characters are one word, and a run's last character is one
by itself; a Latin word or a number is one, in lower case. 处理 then finds 待处理 (one of its pairs), a single character
finds every word that begins with it, and a longer run is a phrase of pairs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final

from django.db import connection
from django.db.models import Case, IntegerField, When
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from .models import Article, ArticleQuerySet, SearchEntry

MAX_QUERY_CHARACTERS: Final = 80
MAX_PHRASES: Final = 8
MAX_RESULTS: Final = 200  # nobody reads further; a query that finds more is too wide
SNIPPET_CHARACTERS: Final = 110
_BEFORE_HIT: Final = 24  # characters of a snippet before the first hit

# Chinese, Japanese and Korean characters, of which a word has no visible bounds; then everything else that is a letter.
_CJK: Final = (
    "\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af"
)
_ONE_CJK: Final = re.compile(f"[{_CJK}]")
_RUNS: Final = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_LONGEST_WORD: Final = 40  # characters of a Latin word that count: InnoDB's index takes 84 bytes of one


@dataclass(frozen=True)
class Phrase:
    """What must stand together: full-text words in their order; the last may go on where `open_end`."""

    words: tuple[str, ...]
    open_end: bool


def make_words(text: str) -> list[str]:
    """Give the full-text words of a text, in order: ASCII letters and digits alone."""
    return [word for run in _RUNS.findall(text.casefold()) for word in _words_of_run(run)]


def _words_of_run(run: str) -> Iterator[str]:
    if not _is_cjk(run[0]):
        yield _spell(run[:_LONGEST_WORD])
        return
    for first, second in itertools.pairwise(run):
        yield _code(first) + _code(second)
    yield _code(run[-1])


def _is_cjk(character: str) -> bool:
    return _ONE_CJK.match(character) is not None


def _code(character: str) -> str:
    """A character as five letters and digits, so that a pair begins with its first character's."""
    return f"{ord(character):05x}"


def _spell(word: str) -> str:
    # The letters before it: no stop word of any database begins so, and no word is too short for an index.
    if word.isascii():
        return f"ww{word}"
    return "vv" + "".join(_code(character) for character in word)[:80]


def parse_query(text: str) -> list[Phrase]:
    """Give the phrases of a query, all of which must be found. Words that are no words at all are left out."""
    phrases: dict[Phrase, None] = {}
    for run in _RUNS.findall(text[:MAX_QUERY_CHARACTERS].casefold()):
        words = list(_words_of_run(run))
        if _is_cjk(run[0]) and len(words) > 1:
            phrases[Phrase(tuple(words[:-1]), open_end=False)] = None  # its last character need not end a run
        else:
            phrases[Phrase(tuple(words), open_end=True)] = None
    return list(phrases)[:MAX_PHRASES]


# -- The index ---------------------------------------------------------------------------------------------------


def index_article(article: Article) -> None:
    """Bring an article's shadow row up to date; of a draft there is none."""
    if article.status != Article.Status.PUBLISHED:
        SearchEntry.objects.filter(article=article).delete()
        return
    fields = list_words(article.title, article.summary, article.body_html)
    SearchEntry.objects.update_or_create(article=article, defaults=fields)


def list_words(title: str, summary: str, body_html: str) -> dict[str, str]:
    """Give the columns of an article's shadow row."""
    of_title = make_words(title)
    of_body = make_words(f"{summary}\n{read_html(body_html)}")
    # The title's words twice: a query may name something of each.
    return {"title_words": " ".join(of_title), "all_words": " ".join([*of_title, *of_body])}


def search_articles(query: str) -> ArticleQuerySet:
    """Published articles that hold all phrases of a query, best first: those with all in the title come before others.

    At most MAX_RESULTS. A query without words finds nothing.
    """
    phrases = parse_query(query)
    if not phrases:
        return Article.objects.none()
    found = _match("title_words", phrases)
    if len(found) < MAX_RESULTS:
        in_titles = set(found)
        found += [key for key in _match("all_words", phrases) if key not in in_titles]
    order = Case(
        *(When(pk=key, then=place) for place, key in enumerate(found[:MAX_RESULTS])),
        output_field=IntegerField(),
    )
    return Article.objects.published().filter(pk__in=found[:MAX_RESULTS]).order_by(order)


def _match(column: str, phrases: Sequence[Phrase]) -> list[int]:
    """The articles whose column holds all phrases, by the database's own measure of relevance."""
    sql, asked = _SQLITE if connection.vendor == "sqlite" else _MYSQL, _ask(phrases)
    with connection.cursor() as cursor:
        cursor.execute(sql.format(column=column), {"asked": asked, "limit": MAX_RESULTS})
        return [row[0] for row in cursor.fetchall()]


# bm25 is smaller for a better match.
_SQLITE: Final = """
    SELECT rowid FROM articles_search WHERE {column} MATCH %(asked)s ORDER BY bm25(articles_search) LIMIT %(limit)s"""
_MYSQL: Final = """
    SELECT article_id FROM articles_searchentry WHERE MATCH({column}) AGAINST (%(asked)s IN BOOLEAN MODE)
    ORDER BY MATCH({column}) AGAINST (%(asked)s IN BOOLEAN MODE) DESC LIMIT %(limit)s"""


def _ask(phrases: Sequence[Phrase]) -> str:
    """Say phrases in the database's language. Words are ASCII letters and digits, so that nothing needs quoting."""
    if connection.vendor == "sqlite":
        return " AND ".join(" + ".join(phrase.words) + "*" * phrase.open_end for phrase in phrases)
    return " ".join(
        f"+{phrase.words[0]}{'*' * phrase.open_end}"
        if len(phrase.words) == 1
        else f'+"{" ".join(phrase.words)}"'
        for phrase in phrases
    )


# -- What is shown -----------------------------------------------------------------------------------------------


class _TextReader(HTMLParser):
    """Collects the text between tags; blocks are kept apart."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("a", "code", "em", "strong", "s", "del"):
            self.parts.append(" ")


def read_html(html: str) -> str:
    """Give the text of rendered Markdown, white space joined."""
    reader = _TextReader()
    reader.feed(html)
    reader.close()
    return " ".join("".join(reader.parts).split())


def highlight(text: str, query: str) -> SafeString:
    """Escape a text and mark in it what a query asked for."""
    pattern = _hits(query)
    if pattern is None:
        return conditional_escape(text)
    parts, end = [], 0
    for hit in pattern.finditer(text):
        parts += [
            conditional_escape(text[end : hit.start()]),
            "<mark>",
            conditional_escape(hit[0]),
            "</mark>",
        ]
        end = hit.end()
    parts.append(conditional_escape(text[end:]))
    return mark_safe("".join(parts))  # noqa: S308 - every part of the text is escaped


def make_snippet(text: str, query: str) -> str:
    """Give the part of a text around its first hit, or its beginning."""
    pattern = _hits(query)
    hit = pattern.search(text) if pattern else None
    start = max(0, hit.start() - _BEFORE_HIT) if hit else 0
    if start + SNIPPET_CHARACTERS > len(text):
        start = max(0, len(text) - SNIPPET_CHARACTERS)
    cut = text[start : start + SNIPPET_CHARACTERS].strip()
    return f"{'…' if start else ''}{cut}{'…' if start + SNIPPET_CHARACTERS < len(text) else ''}"


def _hits(query: str) -> re.Pattern[str] | None:
    runs = sorted(set(_RUNS.findall(query[:MAX_QUERY_CHARACTERS])), key=len, reverse=True)
    # A Latin word is found by its beginning; within another word it was not found.
    parts = [re.escape(run) if _is_cjk(run[0]) else rf"(?<!\w){re.escape(run)}\w*" for run in runs]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None
