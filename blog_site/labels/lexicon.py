"""The labeller that costs nothing: SnowNLP's word statistics, https://github.com/isnowfy/snownlp."""

from __future__ import annotations

import functools
import gc
import re
from collections.abc import Callable
from importlib.metadata import version

from blog_site.comments.models import Sentiment
from ml.text import normalize_text

from .labellers import LabelProposal
from .models import Source

POSITIVE_FROM, NEGATIVE_TO = 0.6, 0.4
# The statistics know two classes: between them lies doubt rather than neutrality, so confidence stays low.
NEUTRAL_MAX_CONFIDENCE = 0.3
# SnowNLP's segmentation takes quadratic time for a run of characters: 0.15 s for 600, 6 s for 10,000.
HEAD_CHARACTERS, TAIL_CHARACTERS = 300, 300
_CHINESE = re.compile("[\u4e00-\u9fa5]")


class LexiconLabeller:
    """Labels by the odds that a text is a positive rather than a negative review."""

    source = Source.LEXICON.value
    prompt_digest = ""
    concurrency = 1  # arithmetic in Python: a second thread would only wait for the first

    def __init__(self) -> None:
        self.model = f"snownlp-{version('snownlp')}"

    def propose(self, text: str) -> LabelProposal:
        """Label a text; one without a Chinese character is neutral without confidence."""
        words = _shorten(normalize_text(text))
        # The tables know Chinese alone: every foreign word or emoji would count as a little bad news.
        if not _CHINESE.search(words):
            return LabelProposal(sentiment=Sentiment.NEUTRAL.value, confidence=0.0)
        return judge_positivity(_positivity()(words))


def judge_positivity(positivity: float) -> LabelProposal:
    """Turn the probability of being positive into a label; confidence is the distance from even odds."""
    if positivity >= POSITIVE_FROM:
        return LabelProposal(sentiment=Sentiment.POSITIVE.value, confidence=2 * positivity - 1)
    if positivity <= NEGATIVE_TO:
        return LabelProposal(sentiment=Sentiment.NEGATIVE.value, confidence=1 - 2 * positivity)
    closeness = 1 - abs(positivity - 0.5) / (POSITIVE_FROM - 0.5)
    return LabelProposal(sentiment=Sentiment.NEUTRAL.value, confidence=NEUTRAL_MAX_CONFIDENCE * closeness)


def _shorten(text: str) -> str:
    """Keep the beginning and the end of a long text: reviews open and close with their verdict."""
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return text
    return f"{text[:HEAD_CHARACTERS]} {text[-TAIL_CHARACTERS:]}"


@functools.cache
def _positivity() -> Callable[[str], float]:
    """Load SnowNLP (two seconds, 400 MB). Its tables are only read afterwards, so threads may share them."""
    # The tables are millions of tuples, which the collector would walk again and again while they are read (half
    # of the loading time), and at every later collection; frozen, it leaves them alone.
    collecting = gc.isenabled()
    gc.disable()
    try:
        from snownlp import sentiment
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
    # SnowNLP(text).sentiments, without the search index over the characters that its constructor builds.
    return sentiment.classify
