"""The inverted index: for each word the numbers of the texts that have it, in ordinary rows of any database.

A row holds one word's numbers out of one block of BLOCK_SIZE, as a sorted list of offsets or, where that is shorter,
as a bitmap (the containers of Roaring bitmaps, Chambi et al. 2014, arXiv:1402.6407). A query then reads a row for each
block and word, however many texts match, and whatever joins words is one AND of integers. The block comes first in
the key: what one text's words change lies together, and an index that is built anew is written from end to end.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from django.db import connection

from .models import SearchEntry, SearchPosting

BLOCK_SIZE: Final = 4096  # numbers; a bitmap of them has 512 bytes
_BITMAP_BYTES: Final = BLOCK_SIZE // 8
_ROWS_A_STATEMENT: Final = 500
# Words times blocks that one query looks up: of far more, MySQL and MariaDB give up planning, and read the whole table.
_KEYS_A_QUERY: Final = 2000
_NO_WORD: Final = b""  # under which each block has a row that its writers lock


@dataclass(frozen=True)
class TextWords:
    """The words of a text: those of its title, and those of all of it."""

    title: frozenset[str] = frozenset()
    anywhere: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Matches:
    """The numbers of texts that have all words, newest first: in their titles, and elsewhere only."""

    in_titles: list[int]
    elsewhere: list[int]


def find_numbers(words: Iterable[str], *, limit: int) -> Matches:
    """Find the texts that have all of these words (at least one), at most `limit` of either kind."""
    in_titles: list[int] = []
    elsewhere: list[int] = []
    for block, titles, anywhere in _all_of(set(words)):
        in_titles += islice(_number(block, titles), limit - len(in_titles))
        elsewhere += islice(_number(block, anywhere & ~titles), limit - len(elsewhere))
    return Matches(in_titles, elsewhere)


def _all_of(words: set[str]) -> Iterator[tuple[int, int, int]]:
    """The newest block first, with the bitmaps of those that have all words in their title, and anywhere."""
    blocks: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for block, in_titles, anywhere in _read(sorted(words)):
        blocks[block].append((in_titles, anywhere))
    for block in sorted(blocks, reverse=True):
        if len(blocks[block]) < len(words):
            continue
        titles = everywhere = -1
        for in_titles, anywhere in blocks[block]:
            titles &= unpack(in_titles)
            everywhere &= unpack(anywhere)
        yield block, titles, everywhere


def _read(words: Sequence[str]) -> Iterator[tuple[int, bytes, bytes]]:
    # Two questions, each the end of an index; in one, SQLite would read all that lies between.
    entries = SearchEntry.objects.order_by("pk").values_list("pk", flat=True)
    first, last = entries.first(), entries.last()
    if first is None or last is None:
        return
    blocks = list(range(first // BLOCK_SIZE, last // BLOCK_SIZE + 1))
    words_at_once = max(1, _KEYS_A_QUERY // len(blocks))
    for part in _parts(words, words_at_once):
        rows = SearchPosting.objects.filter(block__in=blocks, word__in=[word.encode() for word in part])
        yield from rows.values_list("block", "in_titles", "anywhere")


def _number(block: int, bits: int) -> Iterator[int]:
    """The numbers of a bitmap's bits, highest first."""
    while bits:
        offset = bits.bit_length() - 1
        yield block * BLOCK_SIZE + offset
        bits ^= 1 << offset


def unpack(packed: bytes) -> int:
    """Give a row's column as a bitmap."""
    if len(packed) == _BITMAP_BYTES:
        return int.from_bytes(packed, "little")
    return sum(1 << offset for offset in _unpack_list(packed))


def pack(offsets: Sequence[int]) -> bytes:
    """Write offsets, sorted and each once, as a row's column."""
    if 2 * len(offsets) < _BITMAP_BYTES:
        return struct.pack(f"<{len(offsets)}H", *offsets)
    bitmap = bytearray(_BITMAP_BYTES)
    for offset in offsets:
        bitmap[offset >> 3] |= 1 << (offset & 7)
    return bytes(bitmap)


def add_offset(packed: bytes, offset: int) -> bytes:
    """Give a row's column with one more offset, which it may have already."""
    if len(packed) == _BITMAP_BYTES:
        bitmap = bytearray(packed)
        bitmap[offset >> 3] |= 1 << (offset & 7)
        return bytes(bitmap)
    offsets = _unpack_list(packed)
    return packed if offset in offsets else pack(sorted((*offsets, offset)))


def discard_offset(packed: bytes, offset: int) -> bytes:
    """Give a row's column without an offset, which it need not have."""
    if len(packed) == _BITMAP_BYTES:
        bits = unpack(packed) & ~(1 << offset)
        is_long = 2 * bits.bit_count() >= _BITMAP_BYTES
        return bits.to_bytes(_BITMAP_BYTES, "little") if is_long else pack(sorted(_number(0, bits)))
    return pack([other for other in _unpack_list(packed) if other != offset])


def _unpack_list(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 2}H", packed)


# -- Writing -----------------------------------------------------------------------------------------------------


def change_words(*, number: int, before: TextWords, after: TextWords) -> None:
    """Make a text found under its present words and no longer under its former ones; within a transaction.

    Writers of one block wait for each other here, so that none writes over what another has added to a row.
    """
    changed = (before.title ^ after.title) | (before.anywhere ^ after.anywhere)
    block, offset = divmod(number, BLOCK_SIZE)
    _replace([(block, _NO_WORD, b"", b"")])
    for part in _parts(sorted(changed)):
        found = _read_for_change(part, block)
        rows = []
        for word in part:
            titles, anywhere = found.get(word.encode(), (b"", b""))
            titles = add_offset(titles, offset) if word in after.title else discard_offset(titles, offset)
            anywhere = (
                add_offset(anywhere, offset) if word in after.anywhere else discard_offset(anywhere, offset)
            )
            rows.append((block, word.encode(), titles, anywhere))
        _replace([row for row in rows if row[3]])
        _remove(block, [row[1] for row in rows if not row[3]])


def write_block(block: int, texts: Mapping[int, TextWords]) -> None:
    """Write the rows of a block that has none yet, from the words of its texts by number."""
    in_titles: dict[str, list[int]] = defaultdict(list)
    anywhere: dict[str, list[int]] = defaultdict(list)
    for number in sorted(texts):
        offset = number % BLOCK_SIZE
        for word in texts[number].title:
            in_titles[word].append(offset)
        for word in texts[number].anywhere:
            anywhere[word].append(offset)
    for part in _parts(sorted(anywhere)):
        _replace(
            [(block, word.encode(), pack(in_titles.get(word, ())), pack(anywhere[word])) for word in part]
        )


def _parts(words: Sequence[str], size: int = _ROWS_A_STATEMENT) -> Iterator[Sequence[str]]:
    return (words[start : start + size] for start in range(0, len(words), size))


def _read_for_change(words: Sequence[str], block: int) -> dict[bytes, tuple[bytes, bytes]]:
    # Locked, and so read as they are now, whatever isolation the database was asked for.
    rows = SearchPosting.objects.select_for_update().filter(
        block=block, word__in=[word.encode() for word in words]
    )
    return {
        bytes(word): (bytes(in_titles), bytes(anywhere))
        for word, in_titles, anywhere in rows.values_list("word", "in_titles", "anywhere")
    }


def _replace(rows: Sequence[tuple[int, bytes, bytes, bytes]]) -> None:
    # REPLACE is understood by SQLite, MariaDB and MySQL alike.
    with connection.cursor() as cursor:
        cursor.executemany(
            "REPLACE INTO articles_searchposting (block, word, in_titles, anywhere) VALUES (%s, %s, %s, %s)",
            rows,
        )


def _remove(block: int, words: Sequence[bytes]) -> None:
    if words:
        SearchPosting.objects.filter(block=block, word__in=words).delete()
