"""The tokens a model knows and their ids."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ml.tokenizer import Tokenizer

PAD: Final = 0
UNK: Final = 1
RESERVED: Final = ("<pad>", "<unk>")


class Vocabulary:
    """An immutable list of tokens; a token's position is its id, and its row in the embedding."""

    def __init__(self, tokens: Sequence[str]) -> None:
        """Take tokens in id order, the reserved ones first; raises ValueError when they are not so."""
        if tuple(tokens[: len(RESERVED)]) != RESERVED:
            raise ValueError(f"a vocabulary starts with {RESERVED}, this one with {tuple(tokens[:2])!r}")
        self.tokens: tuple[str, ...] = tuple(tokens)
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            repeated = next(token for token, times in Counter(self.tokens).items() if times > 1)
            raise ValueError(f"a vocabulary holds each token once, this one repeats {repeated!r}")
        del self._ids[RESERVED[PAD]]  # no text holds padding: who writes "<pad>" writes an unknown word

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def encode(self, tokens: Sequence[str], max_length: int) -> list[int]:
        """Give the ids of at most `max_length` tokens, never an empty list.

        Of a longer text the beginning and the end are kept: reviews open and close with their verdict. A text
        without tokens becomes one UNK, so that every text has a length and an answer.
        """
        if len(tokens) > max_length:
            head = (max_length + 1) // 2
            tokens = [*tokens[:head], *tokens[len(tokens) - (max_length - head) :]]
        return list(map(self._ids.get, tokens, itertools.repeat(UNK))) or [UNK]

    def ids_beside(self, others: Mapping[str, int]) -> dict[str, int]:
        """Give the tokens' ids by token as `encode` knows them, those of padding left out, and `others` beside them."""
        return {**self._ids, **others}

    def to_json(self) -> dict[str, Any]:
        """Give the vocabulary as a JSON object."""
        return {"tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Vocabulary:
        """Read a vocabulary back; raises ValueError when it is not one."""
        tokens = document.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError('a vocabulary document is {"tokens": [strings]}, this one is not')
        return cls(tokens)


def count_tokens(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[str]:
    """Count in how many places each token stands; sites' counts add up to the count of their union."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.tokenize(text))
    return counts


def build_vocabulary(
    counts: Mapping[str, int], *, max_size: int, min_count: int, base: Vocabulary | None = None
) -> Vocabulary:
    """Build the vocabulary of the most frequent tokens, the same one for the same counts.

    Order: count descending, then token. `max_size` counts the two reserved tokens. With `base`, every token
    of it keeps its id and new ones are appended after them, so that a trained embedding keeps its rows; a
    base larger than `max_size` stays as it is.
    """
    known = base.tokens if base is not None else RESERVED
    taken = set(known)
    candidates = [
        (token, count) for token, count in counts.items() if count >= min_count and token not in taken
    ]
    candidates.sort(key=lambda pair: (-pair[1], pair[0]))
    room = max(0, max_size - len(known))
    return Vocabulary([*known, *(token for token, _ in candidates[:room])])
