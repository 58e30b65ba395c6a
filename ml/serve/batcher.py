"""Batching without waiting: what is queued while one batch is computed is computed together as the next."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.predict import BATCH_TEXTS, Predictor
from ml.serve.admission import Admission
from ml.serve.metrics import ServiceMetrics

log = logging.getLogger(__name__)

# That a batch may take, as estimated: room for BATCH_TEXTS, of which many have about one length.
STEP_SECONDS: Final = 0.01
_LARGE_TEXTS: Final = 32  # a request with more is large
# Of a batch of large requests while nobody asks about few texts, some 30 ms: a text costs a tenth less in it.
_BULK_TEXTS: Final = 4 * BATCH_TEXTS
_BULK_COST: Final = 20_000
_QUIET_SECONDS: Final = 0.5  # after which nobody is taken to ask about few texts
_TEXT_COST: Final = 16  # of a text beside its characters, in characters
_MOST_CHARACTERS: Final = 1_000  # of a text that cost the model anything
_CUTTING_COST: Final = 0.15  # of a character beyond them, which is only cut into words
_FIRST_SECONDS_PER_COST: Final = 4e-6  # until something was measured
_WEIGHT: Final = 0.1  # of the newest measurement
# Turns of the event loop between two batches, so that answers are sent and requests that have arrived are read: in
# the first the answered requests' tasks run, then what they wrote is sent and sockets are read, in the second the
# tasks of new requests start, and queue behind the third.
_TURNS_BETWEEN: Final = 3

Probabilities = npt.NDArray[np.float32]


class Expired(Exception):
    """The request's deadline passed before it was computed."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class ComputationFailed(Exception):
    """The model could not compute this request; others are not touched by it."""


def always_wanted() -> bool:
    """Stand in where nobody can tell whether a client is still there."""
    return True


@dataclass(eq=False, slots=True)
class Work:
    """One request's texts on their way through the model that answers all of them."""

    predictor: Predictor
    texts: Sequence[str]  # the cheapest first
    costs: Sequence[float]  # of each
    order: Sequence[int]  # which of the request's texts each is
    units: int  # by which admission counts it
    deadline: float  # monotonic seconds, infinity for none
    is_wanted: Callable[[], bool]
    answer: asyncio.Future[Probabilities]
    queued_at: float  # monotonic seconds
    parts: list[Probabilities] = field(default_factory=list)
    taken: int = 0  # texts that went into a batch
    computed: int = 0  # texts whose probabilities are in parts

    @property
    def is_large(self) -> bool:
        """Whether its client expects to wait, rather than keep others waiting."""
        return len(self.texts) > _LARGE_TEXTS

    def give_up(self, error: Exception) -> None:
        """End it without an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class Share:
    """The texts of one request that are in a batch: those from start to stop."""

    work: Work
    start: int
    stop: int

    @property
    def texts(self) -> Sequence[str]:
        """Those texts."""
        return self.work.texts[self.start : self.stop]

    @property
    def cost(self) -> float:
        """What they cost."""
        return sum(self.work.costs[self.start : self.stop])

    @property
    def units(self) -> float:
        """Their part of what the request counts for."""
        return self.work.units * self.cost / sum(self.work.costs)


class Batcher:
    """Computes what it is given, on the event loop's own thread, in steps of a few milliseconds.

    One process runs on one core, so a second thread would only take turns with the loop, and each hand-over costs
    as much as a tenth of a short text. Between two steps the loop answers health checks and refuses what is too much.
    While nobody asks about few texts, steps are longer.
    An idle batcher begins at once: there is no timer. A batch takes texts of all requests that are queued, each its
    share, so that a large request does not hold up small ones; each request's texts see one model, the one that was
    served when it came. A request's texts are taken by their length: those of several large requests then share
    batches of similar lengths, of which little is padding. So that their lengths are similar, large requests go
    together: those that come meanwhile go next.
    """

    def __init__(self, admission: Admission, metrics: ServiceMetrics) -> None:
        self._admission = admission
        self._metrics = metrics
        self._queue: deque[Work] = deque()
        self._scheduled = False
        self._seconds_per_cost = _FIRST_SECONDS_PER_COST
        self._small_came = -math.inf  # monotonic seconds
        self._went_together = False  # the last batch's requests
        self._last_end = 0.0  # of the step before, monotonic seconds; 0 after an idle time

    @property
    def depth(self) -> int:
        """How many requests are queued or being computed."""
        return len(self._queue)

    async def compute(
        self,
        predictor: Predictor,
        texts: Sequence[str],
        *,
        units: int = 0,
        deadline: float = float("inf"),
        is_wanted: Callable[[], bool] = always_wanted,
    ) -> Probabilities:
        """Give class probabilities (n, labels) of n texts.

        Raises Expired after `deadline` (of time.monotonic), Abandoned when `is_wanted` says no before the work has
        begun or between two of its batches, ComputationFailed when the model fails on these very texts.
        """
        if not texts:
            return np.zeros((0, len(predictor.labels)), np.float32)
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        costs = [_cost(text) for text in texts]
        order = sorted(range(len(texts)), key=costs.__getitem__)
        work = Work(
            predictor,
            [texts[index] for index in order],
            [costs[index] for index in order],
            order,
            units,
            deadline,
            is_wanted,
            loop.create_future(),
            now,
        )
        self._queue.append(work)
        if not work.is_large:
            self._small_came = now
        if not self._scheduled:
            self._scheduled = True
            self._last_end = 0.0
            loop.call_soon(self._step)
        return await work.answer

    def _step(self) -> None:
        """Compute one batch and go on after the loop has had its turns, or rest when nothing is queued."""
        started = time.monotonic()
        try:
            shares = self._take(started)
            self._compute(shares)
        except Exception as error:  # a step that dies would leave everybody waiting for good
            log.exception("unexpected failure in a step of the batcher")
            shares = []
            for work in self._queue:
                work.give_up(ComputationFailed(f"unexpected {type(error).__name__}"))
        ended = time.monotonic()
        self._admission.measure(sum(share.units for share in shares), ended - (self._last_end or started))
        self._queue = deque(work for work in self._queue if not work.answer.done())
        self._scheduled = bool(self._queue)
        self._last_end = ended
        self._metrics.set_queue_depth(len(self._queue))
        if self._scheduled:
            _after_turns(asyncio.get_running_loop(), _TURNS_BETWEEN, self._step)

    def _take(self, now: float) -> list[Share]:
        """Choose the next batch: texts for one model, each request's fair share of them."""
        for work in self._queue:
            _drop_in_vain(work, now)
        waiting = [work for work in self._queue if not work.answer.done()]
        alike = [work for work in waiting if work.predictor is waiting[0].predictor]
        together = _leave_next_ones_out(alike)[:BATCH_TEXTS]
        if not together:
            return []
        stops = _fair_stops(together, *self._room(together, now))
        self._went_together = len(together) > 1
        shares = []
        for work, stop in zip(together, stops, strict=True):
            if stop > work.taken:
                if work.taken == 0:
                    self._metrics.observe_queue(now - work.queued_at)
                shares.append(Share(work, work.taken, stop))
                work.taken = stop
        return shares

    def _room(self, works: Sequence[Work], now: float) -> tuple[int, float]:
        """Say how many texts the next batch may hold, and of what cost."""
        long = any(work.costs[work.taken] > _TEXT_COST + _MOST_CHARACTERS for work in works)
        if long or now - self._small_came < _QUIET_SECONDS:  # long texts gain nothing by a longer step
            return BATCH_TEXTS, STEP_SECONDS / self._seconds_per_cost
        # Clients whose requests went together ask again one right after another: the others are in time for the rest
        # of the first one's.
        begins = len(works) == 1 and not works[0].taken and self._went_together
        return (_LARGE_TEXTS if begins else _BULK_TEXTS), _BULK_COST

    def _compute(self, shares: Sequence[Share]) -> None:
        if not shares:
            return
        try:
            self._answer(shares)
        except Exception:  # whatever it is, it is one request's: find which
            log.exception("a batch of %d requests failed; computing them one by one", len(shares))
            for share in shares:
                try:
                    self._answer([share])
                except Exception as error:
                    log.exception("a request of %d texts cannot be computed", len(share.work.texts))
                    share.work.give_up(ComputationFailed(f"{type(error).__name__} while computing"))

    def _answer(self, shares: Sequence[Share]) -> None:
        predictor = shares[0].work.predictor
        texts = [text for share in shares for text in share.texts]
        started = time.monotonic()
        encoded = predictor.encode(texts)
        tokenised = time.monotonic()
        probabilities = predictor.probabilities_of(encoded)
        ended = time.monotonic()
        self._metrics.observe_batch(
            encoded, tokenise_seconds=tokenised - started, model_seconds=ended - tokenised
        )
        took = (ended - started) / sum(share.cost for share in shares)
        self._seconds_per_cost += _WEIGHT * (took - self._seconds_per_cost)
        at = 0
        for share in shares:
            size = share.stop - share.start
            _hand_over(share.work, probabilities[at : at + size])
            at += size


def _drop_in_vain(work: Work, now: float) -> None:
    if not work.is_wanted():
        work.give_up(Abandoned())
    elif now >= work.deadline:
        work.give_up(Expired())


def _hand_over(work: Work, part: Probabilities) -> None:
    work.parts.append(part)
    work.computed += len(part)
    if work.computed == len(work.texts) and not work.answer.done():
        answer = np.empty((len(work.texts), part.shape[1]), np.float32)
        answer[work.order] = np.concatenate(work.parts)
        work.answer.set_result(answer)


def _cost(text: str) -> float:
    """Say what a text costs, as far as one can know before it is cut into words."""
    beyond = max(0, len(text) - _MOST_CHARACTERS)
    return _TEXT_COST + len(text) - beyond + _CUTTING_COST * beyond


def _leave_next_ones_out(works: Sequence[Work]) -> list[Work]:
    """Leave out large requests that came when others had gone ahead."""
    ahead = any(work.taken > _LARGE_TEXTS for work in works)
    return [work for work in works if work.taken or not (ahead and work.is_large)]


def _fair_stops(works: Sequence[Work], most_texts: int, most_cost: float) -> list[int]:
    """Say up to which text each request goes into the next batch, at least one text in all.

    Text by text it is the turn of the request that got the fewest in this batch, or of the first of these; among large
    ones alone, of which the fewest were taken at all: who came later catches up.
    """
    stops = [work.taken for work in works]
    catch_up = all(work.is_large for work in works)
    turns = [(work.taken if catch_up else 0, index) for index, work in enumerate(works)]
    heapq.heapify(turns)
    texts, room = 0, most_cost
    while turns and texts < most_texts:
        turn, index = turns[0]
        room -= works[index].costs[stops[index]]
        if room < 0 and texts:
            break
        texts += 1
        stops[index] += 1
        if stops[index] < len(works[index].texts):
            heapq.heapreplace(turns, (turn + 1, index))
        else:
            heapq.heappop(turns)
    return stops


def _after_turns(loop: asyncio.AbstractEventLoop, turns: int, call: Callable[[], None]) -> None:
    if turns == 0:
        call()
    else:
        loop.call_soon(_after_turns, loop, turns - 1, call)
