"""Searching articles: those with all words of a query in their title first, then the others; newest first in each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html.parser import HTMLParser
from typing import Any, Final

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from .models import Article, SearchEntry, SearchPosting
from .postings import BLOCK_SIZE, TextWords, change_words, find_numbers, write_block
from .words import Phrase, make_words, match_hits, parse_query

MAX_RESULTS: Final = 200  # nobody reads further; a query that finds more is too wide
# Articles that are looked at for one query: in how many of them its long phrases stand, only their texts can say.
MAX_CANDIDATES: Final = 1000
_READ_AT_ONCE: Final = 200
SNIPPET_CHARACTERS: Final = 110
_BEFORE_HIT: Final = 24  # characters of a snippet before the first hit


class FoundArticles(Sequence[Article]):
    """Articles, best first; known by their keys, and read from the database a slice at a time."""

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Article.objects.read(self._keys[place])
        return Article.objects.read([self._keys[place]])[0]

    def __iter__(self) -> Iterator[Article]:
        return iter(Article.objects.read(self._keys))


@dataclass(frozen=True)
class _Hit:
    number: int  # in the index
    article_id: int
    published_at: datetime


def search_articles(query: str) -> FoundArticles:
    """Published articles that hold all phrases of a query, best first: those with all in the title come before others.

    At most MAX_RESULTS, the newest of either kind. A query without words finds nothing.
    """
    phrases = parse_query(query)
    if not phrases:
        return FoundArticles([])
    words = itertools.chain.from_iterable(phrase.words() for phrase in phrases)
    matches = find_numbers(words, limit=MAX_CANDIDATES)
    # A text may hold all pairs of a long run, and still not the run.
    to_read = [phrase for phrase in phrases if phrase.is_long()]
    in_titles = _choose(matches.in_titles, to_read, ["title"], MAX_RESULTS)
    chosen = {hit.number for hit in in_titles}
    elsewhere = sorted({*matches.in_titles, *matches.elsewhere} - chosen, reverse=True)
    others = _choose(elsewhere, to_read, ["title", "text"], MAX_RESULTS - len(in_titles))
    return FoundArticles([hit.article_id for hits in (in_titles, others) for hit in _newest_first(hits)])


def _newest_first(hits: Sequence[_Hit]) -> list[_Hit]:
    return sorted(hits, key=lambda hit: (hit.published_at, hit.article_id), reverse=True)


def _choose(
    numbers: Sequence[int], phrases: Sequence[Phrase], columns: Sequence[str], wanted: int
) -> list[_Hit]:
    """The first numbers, as many as are wanted, whose article is public and has all phrases in these columns."""
    # What has no case, the database can look for, and need not send a text.
    in_database = [phrase for phrase in phrases if phrase.is_cjk()]
    here = [phrase for phrase in phrases if not phrase.is_cjk()]
    chosen: list[_Hit] = []
    for start in range(0, min(len(numbers), MAX_CANDIDATES), _READ_AT_ONCE):
        if len(chosen) >= wanted:
            break
        public = SearchEntry.objects.filter(
            pk__in=numbers[start : start + _READ_AT_ONCE],
            article__status=Article.Status.PUBLISHED,
            article__published_at__lte=timezone.now(),
        ).order_by("-pk")
        for phrase in in_database:
            public = public.filter(_has_run(columns, phrase))
        rows = public.values_list("pk", "article", "article__published_at", *(columns if here else ()))
        chosen += [_Hit(*row[:3]) for row in rows if _has_words("\n".join(row[3:]), here)]
    return chosen[:wanted]


def _has_run(columns: Sequence[str], phrase: Phrase) -> Q:
    stands = Q()
    for column in columns:
        stands |= Q(**{f"{column}__contains": phrase.run})
    return stands


def _has_words(text: str, phrases: Sequence[Phrase]) -> bool:
    lowered = text.casefold()
    return all(phrase.begins_a_word_of(lowered) for phrase in phrases)


# -- The index ---------------------------------------------------------------------------------------------------


def index_article(article: Article) -> None:
    """Bring the index up to date with an article, within the transaction that saves it; of a draft it holds nothing."""
    if article.status != Article.Status.PUBLISHED:
        remove_article(article_id=article.pk)
        return
    with transaction.atomic():
        entry = SearchEntry.objects.select_for_update().filter(article=article).first()
        before = words_of(entry) if entry else TextWords()
        entry = entry or SearchEntry(article=article)
        entry.title, entry.text = article.title, join_text(article.summary, article.body_html)
        entry.save()
        change_words(number=entry.pk, before=before, after=words_of(entry))


def remove_article(*, article_id: int) -> None:
    """Take an article out of the index.

    What is left of one that was deleted otherwise, with its entry, is numbers that lead to none.
    """
    with transaction.atomic():
        entry = SearchEntry.objects.select_for_update().filter(article=article_id).first()
        if entry is not None:
            change_words(number=entry.pk, before=words_of(entry), after=TextWords())
            entry.delete()


def words_of(entry: SearchEntry) -> TextWords:
    title = make_words(entry.title)
    return TextWords(frozenset(title), frozenset(title | make_words(entry.text)))


def join_text(summary: str, body_html: str) -> str:
    """Give what an article is found by beside its title, as one text."""
    return " ".join(filter(None, [summary, read_html(body_html)]))


def rebuild_index() -> Iterator[tuple[int, int]]:
    """Index all published articles anew; gives, block by block, how many are done and how many there are.

    Searching and writing go on meanwhile. Articles get fresh numbers, in the order of their publication, so that the
    former rows stay until the new ones are there. Reads no more of an article than its index needs, since a migration
    calls this while later columns are still to come.
    """
    first_number = _first_free_block() * BLOCK_SIZE
    published = Article.objects.filter(status=Article.Status.PUBLISHED).order_by("published_at", "pk")
    keys = list(published.values_list("pk", flat=True))
    blocks = [keys[start : start + BLOCK_SIZE] for start in range(0, len(keys), BLOCK_SIZE)]
    done = 0
    # The newest first: numbers that the database itself gives from then on are beyond all of these.
    for place, block in reversed(list(enumerate(blocks))):
        _index_block(first_number // BLOCK_SIZE + place, block)
        done += len(block)
        yield done, len(keys)
    for article in published.filter(search_entry__pk__lt=first_number).only(
        "pk", "status", "title", "summary", "body_html"
    ):
        remove_article(article_id=article.pk)  # was published while this began
        index_article(article)
    SearchPosting.objects.filter(block__lt=first_number // BLOCK_SIZE).delete()


def _first_free_block() -> int:
    newest = SearchEntry.objects.aggregate(number=Max("pk"))["number"] or 0
    return newest // BLOCK_SIZE + 1


@transaction.atomic
def _index_block(block: int, keys: Sequence[int]) -> None:
    # Locked, so that nobody changes an article between its being read and being found by what was read.
    articles = Article.objects.select_for_update().filter(pk__in=keys, status=Article.Status.PUBLISHED)
    texts = {
        key: (title, join_text(summary, body_html))
        for key, title, summary, body_html in articles.values_list("pk", "title", "summary", "body_html")
    }
    entries = [
        SearchEntry(pk=block * BLOCK_SIZE + place, article_id=key, title=texts[key][0], text=texts[key][1])
        for place, key in enumerate(keys)
        if key in texts
    ]
    SearchEntry.objects.filter(article__in=keys).delete()
    SearchEntry.objects.bulk_create(entries, batch_size=500)
    write_block(block, {entry.pk: words_of(entry) for entry in entries})


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
    pattern = match_hits(query)
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


def read_texts(articles: Iterable[Article]) -> dict[int, str]:
    """Give the texts by which articles are found, by article id."""
    entries = SearchEntry.objects.filter(article__in=[article.pk for article in articles])
    return dict(entries.values_list("article", "text"))


def make_snippet(text: str, query: str) -> str:
    """Give the part of a text around its first hit, or its beginning."""
    pattern = match_hits(query)
    hit = pattern.search(text) if pattern else None
    start = max(0, hit.start() - _BEFORE_HIT) if hit else 0
    if start + SNIPPET_CHARACTERS > len(text):
        start = max(0, len(text) - SNIPPET_CHARACTERS)
    cut = text[start : start + SNIPPET_CHARACTERS].strip()
    return f"{'…' if start else ''}{cut}{'…' if start + SNIPPET_CHARACTERS < len(text) else ''}"
