"""Explanations beside predictions: many more texts to compute, without holding up those who ask for none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from ml.explain import MAX_SPANS, occlude
from ml.predict import Predictor
from ml.prediction import Attribution, Prediction
from ml.serve.batcher import Abandoned, Expired
from ml.serve.exchange import Exchange
from ml.serve.problems import Problem
from ml.serve.service import InferenceService

MAX_EXPLAINED_TEXTS: Final = 16  # of a request
MAX_EXPLAINED_REQUESTS: Final = (
    8  # under way in one process; each holds a place that a plain request could have
)
_DIGITS: Final = 4  # of a weight

EXPLANATION_SCHEMA: Final = {
    "type": "array",
    "description": f"with explain: the text's words in order, or at most {MAX_SPANS} windows of neighbouring ones; "
    "together all of it but whitespace",
    "items": {
        "type": "object",
        "required": ["start", "end", "text", "weight"],
        "properties": {
            "start": {"type": "integer", "description": "in code points of the text as it was sent"},
            "end": {"type": "integer"},
            "text": {"type": "string", "description": "that part of the text"},
            "weight": {
                "type": "number",
                "description": "by how much the log-odds of the text's label fall when the text is asked about without "
                "this part; below 0 where it speaks against the label",
            },
        },
    },
}


def check_explain(explain: Any, texts: Sequence[str]) -> bool:
    """Say whether explanations are wanted; raises Problem 422 naming the limit."""
    if not isinstance(explain, bool):
        raise Problem(422, f"explain must be true or false, got {type(explain).__name__}", reason="limits")
    if explain and len(texts) > MAX_EXPLAINED_TEXTS:
        limit = f"the limit is {MAX_EXPLAINED_TEXTS} a request with explain"
        raise Problem(422, f"texts holds {len(texts)} texts, {limit}", reason="limits")
    return explain


class Explainer:
    """Makes explanations for one process, one text at a time; their texts go through the batcher like all others.

    A batch takes a fair share of each request, so that what one explanation asks for fills the places that plain
    requests leave; several at once would take several shares.
    """

    def __init__(self, service: InferenceService) -> None:
        self._service = service
        self._turn = asyncio.Lock()
        self._under_way = 0

    async def explain(
        self,
        exchange: Exchange,
        predictor: Predictor,
        texts: Sequence[str],
        predictions: Sequence[Prediction],
    ) -> list[list[dict[str, Any]]]:
        """Explain each prediction of a text by the predictor, as JSON.

        Raises Problem 429 when too many are being made, Expired and Abandoned when nobody will read this one.
        """
        if self._under_way >= MAX_EXPLAINED_REQUESTS:
            detail = (
                f"{self._under_way} requests with explain are under way, which is the limit; ask again later"
            )
            raise Problem(429, detail, {"Retry-After": "1"}, reason="overload")
        self._under_way += 1
        try:
            explained = []
            for text, prediction in zip(texts, predictions, strict=True):
                async with self._turn:
                    explained.append(await self._explain_text(exchange, predictor, text, prediction))
            return explained
        finally:
            self._under_way -= 1

    async def _explain_text(
        self, exchange: Exchange, predictor: Predictor, text: str, prediction: Prediction
    ) -> list[dict[str, Any]]:
        if not exchange.is_wanted():
            raise Abandoned
        if time.monotonic() >= exchange.deadline:
            raise Expired
        # A long text takes milliseconds to cut, which the event loop has better use for.
        occlusion = await asyncio.to_thread(occlude, text, predictor.tokenizer)
        variants = occlusion.variants()
        # What these texts would count for if they had been sent: else the batcher would measure that a unit takes long.
        units = sum(len(variant.encode("utf-8", "ignore")) for variant in variants)
        asked = replace(exchange, units=units)  # so that the log counts the texts that were asked about
        probabilities = await self._service.probabilities(asked, predictor, variants)
        return [
            attribution_document(part)
            for part in occlusion.weigh(prediction, predictor.predictions_of(probabilities))
        ]


def attribution_document(part: Attribution) -> dict[str, Any]:
    """Give an attribution as JSON; half of an emoji, which cannot be sent, is left out of its text."""
    return {
        "start": part.start,
        "end": part.end,
        "text": part.text.encode("utf-8", "ignore").decode(),
        "weight": round(part.weight, _DIGITS),
    }
