"""Which words of a text speak for the label it was given: the text is asked about again without each of them.

Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901; of words, Li et al. 2016, arXiv:1612.08220) takes the model as it is
served, so it says of all its parts together what they make of a word: the text without it has other tokens and other
runs of characters. Who computes decides the caller: `occlude` gives the texts to ask about, `weigh` reads the answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ml.alignment import Span, align_text
from ml.prediction import Attribution, Prediction
from ml.tokenizer import Tokenizer

MAX_SPANS: Final = 64  # of a text: so many more predictions does an explanation cost
_CERTAIN: Final = 1e-6  # closer to 0 and 1 a probability in single precision says no more


@dataclass(frozen=True)
class Occlusion:
    """A text and the parts of it that are left out one at a time."""

    text: str
    spans: tuple[Span, ...]  # ascending, disjoint; together all that is not whitespace

    def variants(self) -> list[str]:
        """Give the text without each of its parts, in their order."""
        return [self.text[:start] + self.text[end:] for start, end in self.spans]

    def weigh(self, whole: Prediction, without: Sequence[Prediction]) -> tuple[Attribution, ...]:
        """Weigh each part by what the text's label loses without it, given the predictions of the variants."""
        full = _log_odds(whole.probabilities[whole.label])
        return tuple(
            Attribution(start, end, self.text[start:end], full - _log_odds(found.probabilities[whole.label]))
            for (start, end), found in zip(self.spans, without, strict=True)
        )


def occlude(text: str, tokenizer: Tokenizer, max_spans: int = MAX_SPANS) -> Occlusion:
    """Cut a text into its tokens, or into windows of neighbouring ones where there are more than `max_spans`.

    Places are those of the text as given. Tokens that come from one character (½ is read as three) stay together.
    """
    spans = _token_spans(text, tokenizer)
    window = max(1, math.ceil(len(spans) / max_spans))
    groups = [spans[start : start + window] for start in range(0, len(spans), window)]
    return Occlusion(text, tuple((group[0][0], group[-1][1]) for group in groups))


def _token_spans(text: str, tokenizer: Tokenizer) -> list[Span]:
    aligned = align_text(text)
    spans: list[Span] = []
    place = 0
    for token in tokenizer.cut_normalized(aligned.normalized):
        found = aligned.normalized.find(token, place)
        if found < 0:
            raise ValueError(f"the tokenizer made {token!r} of a text that does not hold it: {text!r:.100}")
        place = found + len(token)
        start, end = aligned.original_span(found, place)
        if spans and start < spans[-1][1]:
            start, end = spans.pop()[0], max(end, start)
        spans.append((start, end))
    return spans


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, _CERTAIN), 1 - _CERTAIN)
    return math.log(bounded / (1 - bounded))
