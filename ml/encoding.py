"""Texts as a network reads them: their tokens and their runs of characters, as numbers laid end to end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ml.grams import number_runs
from ml.text import normalize_text
from ml.tokenizer import LINE_END, TokenizerSettings, make_tokenizer
from ml.vocabulary import PAD, UNK, Vocabulary

CHUNK_TEXTS: Final = 64  # that are encoded at once; bounds the memory that numbering runs takes
_EMPTY: Final = "\x00"  # stands in for a text without content; normalizing leaves it in no other
_NO_TOKEN: Final = -1  # whitespace
_END: Final = -2  # of a line


class EncodedText(NamedTuple):
    """A text as a network reads it."""

    token_ids: npt.NDArray[np.int32]  # at least one
    grams: npt.NDArray[np.int64]  # its runs of characters


@dataclass(frozen=True)
class EncodedTexts:
    """Several of them, end to end: numpy takes as long to be called for one text as for all of them."""

    token_ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]  # (n,), in tokens
    grams: npt.NDArray[np.int64]
    gram_counts: npt.NDArray[np.int64]  # (n,)

    @classmethod
    def join(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        """Lay several end to end."""
        if len(parts) == 1:
            return parts[0]
        nothing = np.zeros(0, np.int64)
        return cls(
            np.concatenate([np.zeros(0, np.int32), *(part.token_ids for part in parts)]),
            np.concatenate([nothing, *(part.lengths for part in parts)]),
            np.concatenate([nothing, *(part.grams for part in parts)]),
            np.concatenate([nothing, *(part.gram_counts for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[EncodedText]:
        ends, gram_ends = ([0, *np.cumsum(counts).tolist()] for counts in (self.lengths, self.gram_counts))
        for (start, stop), (first, last) in zip(
            itertools.pairwise(ends), itertools.pairwise(gram_ends), strict=True
        ):
            yield EncodedText(self.token_ids[start:stop], self.grams[first:last])

    def parts(self, texts: int) -> Iterator[EncodedTexts]:
        """Give so many texts after so many, the last part with what is left."""
        for start in range(0, len(self), texts):
            stop = start + texts
            token, gram = self.lengths[:start].sum(), self.gram_counts[:start].sum()
            lengths, counts = self.lengths[start:stop], self.gram_counts[start:stop]
            yield EncodedTexts(
                self.token_ids[token : token + lengths.sum()],
                lengths,
                self.grams[gram : gram + counts.sum()],
                counts,
            )

    def by_time(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Give the ids (time, texts) of the texts in this order, padded with PAD.

        Each step of a recurrent network reads what lies together.
        """
        lengths = self.lengths[order]
        starts = (np.cumsum(self.lengths) - self.lengths)[order]
        step = np.arange(lengths.max())[:, None]
        places = np.where(step < lengths, starts + step, len(self.token_ids))
        return np.append(self.token_ids, np.int32(PAD)).take(places, mode="clip")

    def unknown_tokens(self) -> int:
        """Count the tokens that the vocabulary does not know."""
        return int(np.count_nonzero(self.token_ids == UNK))


class TextEncoder:
    """Turns texts into numbers the way one model was trained on them."""

    def __init__(self, tokenizer: TokenizerSettings, vocabulary: Vocabulary, max_length: int) -> None:
        self.tokenizer: Final = make_tokenizer(tokenizer)
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._id_of = vocabulary.ids_beside({" ": _NO_TOKEN, LINE_END: _END, _EMPTY: UNK}).get

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Encode each text."""
        return EncodedTexts.join(
            [self._encode(texts[start : start + CHUNK_TEXTS]) for start in range(0, len(texts), CHUNK_TEXTS)]
        )

    def _encode(self, texts: Sequence[str]) -> EncodedTexts:
        normalized = [normalize_text(text) for text in texts]
        number = self._number_tokens if len(texts) > 1 else self._number_tokens_of_one
        return EncodedTexts(*number(normalized), *number_runs(normalized))

    def _number_tokens_of_one(
        self, normalized: Sequence[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        ids = self._vocabulary.encode(self.tokenizer.cut_normalized(normalized[0]), self._max_length)
        return np.array(ids, np.int32), np.array([len(ids)])

    def _number_tokens(
        self, normalized: Sequence[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Do what Vocabulary.encode does with the tokens of each text, for all at once; their lengths beside."""
        tokens = self.tokenizer.cut_lines([text or _EMPTY for text in normalized])
        numbers = np.fromiter(map(self._id_of, tokens, itertools.repeat(UNK)), np.int32, len(tokens))
        kept = numbers >= 0
        ends = np.append(np.flatnonzero(numbers == _END), len(numbers) - 1)
        lengths = np.diff(np.cumsum(kept)[ends], prepend=0)
        token_ids = numbers[kept]
        if lengths.max() > self._max_length:
            return self._leave_middles_out(token_ids, lengths)
        return token_ids, lengths

    def _leave_middles_out(
        self, token_ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        head = (self._max_length + 1) // 2
        tail = self._max_length - head
        ends = np.cumsum(lengths)
        kept = np.ones(len(token_ids), bool)
        for row in np.flatnonzero(lengths > self._max_length):
            kept[ends[row] - lengths[row] + head : ends[row] - tail] = False
        return token_ids[kept], np.minimum(lengths, self._max_length)
