"""Why the model judges a comment as it does: its text with the words that speak for the judgement, and against it."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache

from blog_site.limits import Rate, spend
from blog_site.users.models import User

from .inference import PredictResponse, explain_text
from .models import Comment

KEPT_SECONDS: Final = 7 * 24 * 3600
# An explanation of another model than the one the badge shows: the comment's next prediction makes it useless.
KEPT_BRIEFLY_SECONDS: Final = 60
WORDS_NAMED: Final = 3  # for and against, in the sentence under the text
_FAINT: Final = 0.2  # of the strongest word's weight; what is fainter is not marked
_STRONG: Final = 1.5  # log-odds; where no word reaches this, none is marked as strong

Side = Literal["for", "against", ""]


class TooManyAsked(Exception):
    """Somebody has asked for more new explanations within a minute than the service is to be asked for."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"too many explanations: ask again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Part:
    """A stretch of a comment's text, and what it does to the judgement."""

    text: str
    side: Side = ""
    level: int = 0  # 1 to 3, how strongly
    weight: float = 0.0  # log-odds
    score_without: float = 0.0  # the judgement's probability without this part


@dataclass(frozen=True)
class Explanation:
    """A model's judgement of a text, and the whole text in parts, in order."""

    model: str  # the digest of the one that judged
    label: str  # of `Sentiment`
    score: float
    parts: tuple[Part, ...]

    def words_for(self) -> list[str]:
        """The words that speak most for the judgement, the strongest first."""
        return self._words("for")

    def words_against(self) -> list[str]:
        """The words that speak most against it."""
        return self._words("against")

    def _words(self, side: Side) -> list[str]:
        found = sorted((part for part in self.parts if part.side == side), key=lambda part: -abs(part.weight))
        words = dict.fromkeys(part.text.strip() for part in found)
        return [word for word in words if not _is_punctuation(word)][:WORDS_NAMED]


def explain_comment(*, comment: Comment, asker: str) -> Explanation:
    """Explain the judgement of a comment's present text, asking the model only if nobody has asked it yet.

    Raises InferenceError, and TooManyAsked when `asker` has had too many made within a minute.
    """
    prediction = comment.current_prediction()
    model = prediction.model_digest if prediction else ""
    # Of the text itself: its digest would be that of every text that reads the same, with words in other places.
    key = f"explanation-of-model:{hashlib.sha256(comment.text.encode()).hexdigest()}:{model}"
    kept = cache.get(key)
    if kept is None:
        _count(asker)
        answer = explain_text(comment.text)
        kept = _to_keep(answer)
        cache.set(key, kept, KEPT_SECONDS if answer.model == model else KEPT_BRIEFLY_SECONDS)
    return _explanation(comment.text, kept)


def name_asker(user: User | AnonymousUser, address: str) -> str:
    """Say who asks. Readers behind one proxy that does not pass their addresses on count as one."""
    return f"user {user.pk}" if user.is_authenticated else f"address {address}"


def _count(asker: str) -> None:
    wait = spend(purpose="explanations", who=asker, rate=Rate(settings.EXPLANATIONS_PER_MINUTE, seconds=60))
    if wait:
        raise TooManyAsked(retry_after_seconds=wait)


def _to_keep(answer: PredictResponse) -> dict[str, Any]:
    """Give what is worth keeping, in plain types: what is kept outlives the classes of a release."""
    assert answer.explanations is not None
    spans = [[part.start, part.end, part.weight] for part in answer.explanations[0]]
    judged = answer.predictions[0]
    return {"model": answer.model, "label": judged.label, "score": judged.score, "spans": spans}


def _explanation(text: str, kept: dict[str, Any]) -> Explanation:
    parts = tuple(_parts(text, kept["spans"], kept["score"]))
    return Explanation(model=kept["model"], label=kept["label"], score=kept["score"], parts=parts)


def _parts(text: str, spans: Sequence[tuple[int, int, float]], score: float) -> Iterator[Part]:
    """Cut the text into marked words and what stands between them, which together are the whole text."""
    strongest = max((abs(weight) for _start, _end, weight in spans), default=0.0)
    place = 0
    for start, end, weight in spans:
        level = _level(abs(weight), max(strongest, _STRONG))
        if level == 0:
            continue
        if place < start:
            yield Part(text[place:start])
        side: Side = "for" if weight > 0 else "against"
        yield Part(text[start:end], side, level, weight, _score_without(score, weight))
        place = end
    if place < len(text):
        yield Part(text[place:])


def _level(weight: float, strongest: float) -> int:
    share = weight / strongest
    return 0 if share < _FAINT else 1 if share < 0.45 else 2 if share < 0.7 else 3


def _is_punctuation(text: str) -> bool:
    """Whether a part says nothing by itself; it may weigh all the same, and is marked, but a sentence names words."""
    return all(unicodedata.category(character)[0] in "PZC" for character in text)


def _score_without(score: float, weight: float) -> float:
    """Say what probability is left when so many log-odds are taken away."""
    bounded = min(max(score, 1e-6), 1 - 1e-6)
    return 1 / (1 + math.exp(weight - math.log(bounded / (1 - bounded))))
