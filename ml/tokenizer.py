"""Cutting Chinese text into words."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

from ml.text import normalize_text

Cut = Callable[[str, bool], list[str]]
Kind = Literal["jieba", "characters"]
LINE_END: Final = "\n"  # a token of its own, between the lines of `cut_lines`; no normalized text holds it


@dataclass(frozen=True)
class TokenizerSettings:
    """How text becomes tokens; part of every artifact, since a model only knows the tokens it was trained on.

    `hmm` lets jieba guess words that are not in its dictionary. Off, its two implementations cut identically.
    """

    kind: Kind = "jieba"
    hmm: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give the settings as a JSON object."""
        return {"kind": self.kind, "hmm": self.hmm}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TokenizerSettings:
        """Read settings back; raises ValueError naming what is not known."""
        kind: Any = document.get("kind")
        hmm = document.get("hmm")
        if kind not in get_args(Kind) or not isinstance(hmm, bool):
            raise ValueError(
                f'tokenizer: expected kind "jieba" or "characters" and hmm true or false, '
                f"got {kind!r} and {hmm!r}"
            )
        if kind == "characters" and hmm:
            raise ValueError("tokenizer: characters are not guessed at: hmm must be false, got true")
        return cls(kind=kind, hmm=hmm)


class Tokenizer(Protocol):
    """Anything that cuts a text into tokens."""

    def tokenize(self, text: str) -> list[str]:
        """Give the tokens of a text, none of them whitespace; empty for a text without content."""
        ...

    def cut_normalized(self, normalized: str) -> list[str]:
        """Do the same with a text that is normalized already, for those who want its normalized form as well.

        The only whitespace in it is single spaces.
        """
        ...

    def cut_lines(self, normalized: Sequence[str]) -> list[str]:
        """Do the same with several at once, which is quicker: one's tokens, LINE_END, the next one's tokens.

        Single spaces are left among them.
        """
        ...


@dataclass(frozen=True)
class JiebaTokenizer:
    """Cuts normalized text with the given implementation of jieba's algorithm."""

    cut: Cut
    hmm: bool

    def tokenize(self, text: str) -> list[str]:
        """Give the words, numbers, punctuation and emoji of a text in order."""
        return self.cut_normalized(normalize_text(text))

    def cut_normalized(self, normalized: str) -> list[str]:
        """Give the same of a normalized text."""
        tokens = self.cut(normalized, self.hmm)
        return [word for word in tokens if word != " "] if " " in normalized else tokens

    def cut_lines(self, normalized: Sequence[str]) -> list[str]:
        """Give those of several texts: the algorithm never joins what whitespace parts."""
        return self.cut(LINE_END.join(normalized), self.hmm)


class CharacterTokenizer:
    """Takes every character of the normalized text for a token: no dictionary, no unknown words."""

    def tokenize(self, text: str) -> list[str]:
        """Give the characters of a text in order."""
        return self.cut_normalized(normalize_text(text))

    def cut_normalized(self, normalized: str) -> list[str]:
        """Give the same of a normalized text."""
        return list(normalized.replace(" ", ""))

    def cut_lines(self, normalized: Sequence[str]) -> list[str]:
        """Give those of several texts."""
        return list(LINE_END.join(normalized))


def make_tokenizer(settings: TokenizerSettings) -> Tokenizer:
    """Make the tokenizer that the settings name; for jieba with rjieba where it is installed, else with jieba itself.

    rjieba is about 15 times faster.
    """
    if settings.kind == "characters":
        return CharacterTokenizer()
    fast = importlib.util.find_spec("rjieba") is not None
    return JiebaTokenizer(cut_with_rjieba if fast else cut_with_jieba, settings.hmm)


def cut_with_rjieba(text: str, hmm: bool) -> list[str]:
    """Cut with the Rust implementation."""
    import rjieba

    return rjieba.cut(text, hmm)


def cut_with_jieba(text: str, hmm: bool) -> list[str]:
    """Cut with the Python implementation, whose dictionary is loaded on the first call (about a second)."""
    return list(_python_jieba().cut(text, HMM=hmm))


@functools.cache
def _python_jieba() -> Any:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports loading its dictionary on standard error, as DEBUG
    cutter = jieba.Tokenizer()
    cutter.initialize()
    return cutter
