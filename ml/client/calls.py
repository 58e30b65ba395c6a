"""One call from the first attempt to the last: everything about it but the waiting.

A call is a generator that says what to do next, send or pause, and is told what came of it. Whoever drives it does
the waiting: the blocking client with sockets and `sleep`, the asynchronous one on an event loop, a test with neither.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from ml.client.answers import problem_detail
from ml.client.breaker import CircuitBreaker, Permit
from ml.client.budget import RetryBudget
from ml.client.errors import CircuitOpen, InferenceError

DEADLINE_HEADER: Final = "X-Request-Timeout-Ms"
_NOT_REFUSALS: Final = frozenset({408, 425, 429})  # say nothing against the request itself
_WORTH_ANOTHER: Final = frozenset({408, 425, 429, 502, 503, 504})  # 500 is a fault that would repeat itself
_NO_ANSWER: Final = (ValueError, KeyError, TypeError, AttributeError)  # what reading another document raises

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class CallPolicy:
    """How much a client tries and takes before it gives up."""

    attempts: int = 3  # of one call
    first_pause_seconds: float = 0.05  # before a retry; doubles, and what is waited is drawn from 0 up to it
    longest_pause_seconds: float = 1.0
    retry_ratio: float = 0.1  # of calls that may be retried
    retry_reserve: float = 10.0  # retries
    retries_per_second: float = 0.1
    breaker_failures: int = 5  # in a row, until the circuit opens
    breaker_first_pause_seconds: float = 0.5
    breaker_longest_pause_seconds: float = 10.0
    max_response_bytes: int = 8 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """What is sent, but for the time that is left."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Send:
    """To do: send a request and read the whole reply, within a time that holds for all of it."""

    request: Request
    timeout_seconds: float


@dataclass(frozen=True)
class Pause:
    """To do: wait."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """What came of sending: a reply, whatever it says."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    seconds: float  # from the request's first byte to the reply's last


@dataclass(frozen=True)
class NoReply:
    """What came of sending: nothing that could be read."""

    reason: str
    permanent: bool = False
    again: bool = True  # whether another attempt may fare better


Call = Generator[Send | Pause, Reply | NoReply | None, Answer]
"""A call under way: told None to begin with and after a pause, an outcome after a request."""


@dataclass(frozen=True)
class _Failure:
    error: InferenceError
    again: bool = False
    sick: bool = False  # whether it says that the service is not well
    wait_seconds: float = 0.0  # that the service asked for


class Caller:
    """Makes calls to one service, which share its retry budget and its circuit breaker."""

    def __init__(
        self,
        service: str,
        policy: CallPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._service = service  # as errors name it
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self.budget = RetryBudget(
            ratio=policy.retry_ratio,
            reserve=policy.retry_reserve,
            per_second=policy.retries_per_second,
            clock=clock,
        )
        self.breaker = CircuitBreaker(
            service,
            failures=policy.breaker_failures,
            first_pause_seconds=policy.breaker_first_pause_seconds,
            longest_pause_seconds=policy.breaker_longest_pause_seconds,
            clock=clock,
            uniform=uniform,
        )

    def call(self, request: Request, timeout_seconds: float, read: Callable[[Reply], Answer]) -> Call[Answer]:
        """Ask until there is an answer, or no time, no retry or no sense in asking again; raises InferenceError.

        `read` takes a reply with status 200 and raises ValueError, KeyError, TypeError or AttributeError for one that
        is no answer. Raises CircuitOpen, without having asked, while the service is left alone.
        """
        deadline = self._clock() + timeout_seconds
        self.budget.deposit()
        last: _Failure | None = None
        for attempt in range(self._policy.attempts):
            if last is not None:
                yield Pause(self._pause_before_retry(last, attempt, deadline))
            with self._admit(last) as permit:
                outcome = yield self._send(request, deadline)
                found = self._read(outcome, read, accepted=(200,))
                permit.report(healthy=not (isinstance(found, _Failure) and found.sick))
            if not isinstance(found, _Failure):
                return found
            last = found
        assert last is not None
        raise last.error

    def ask_anyway(
        self,
        request: Request,
        timeout_seconds: float,
        read: Callable[[Reply], Answer],
        *,
        accepted: tuple[int, ...],
    ) -> Call[Answer]:
        """Ask whether the service is well: past the breaker, since that is the question, and taking 503 for an answer.

        Only a connection that broke is tried once more. Raises InferenceError.
        """
        deadline = self._clock() + timeout_seconds
        found = self._read((yield self._send(request, deadline)), read, accepted)
        if isinstance(found, _Failure) and found.again and self._clock() < deadline:
            found = self._read((yield self._send(request, deadline)), read, accepted)
        if isinstance(found, _Failure):
            raise found.error
        return found

    def _admit(self, last: _Failure | None) -> Permit:
        try:
            return self.breaker.admit()
        except CircuitOpen:
            if last is not None:  # it opened on what this very call met, which says more
                raise last.error from None
            raise

    def _send(self, request: Request, deadline: float) -> Send:
        left = deadline - self._clock()
        if left <= 0:
            raise InferenceError(f"{self._service} was not asked: no time was left", permanent=False)
        headers = {**request.headers, DEADLINE_HEADER: str(max(1, int(left * 1000)))}
        return Send(Request(request.method, request.path, request.body, headers), left)

    def _pause_before_retry(self, failure: _Failure, attempt: int, deadline: float) -> float:
        """Say how long to wait before the next attempt; raises the failure's error when there should be none.

        Full jitter: drawn from nothing up to a bound that doubles (Brooker 2015, AWS Architecture Blog, "Exponential
        Backoff And Jitter"), on top of what the service asked for.
        """
        bound = min(self._policy.first_pause_seconds * 2 ** (attempt - 1), self._policy.longest_pause_seconds)
        pause = failure.wait_seconds + self._uniform(0.0, bound)
        if not failure.again or self._clock() + pause >= deadline or not self.budget.withdraw():
            raise failure.error
        return pause

    def _read(
        self, outcome: Reply | NoReply | None, read: Callable[[Reply], Answer], accepted: tuple[int, ...]
    ) -> Answer | _Failure:
        assert outcome is not None
        if isinstance(outcome, NoReply):
            message = f"{self._service} did not answer: {outcome.reason}"
            error = InferenceError(message, outcome.permanent)
            return _Failure(error, again=outcome.again and not outcome.permanent, sick=not outcome.permanent)
        if outcome.status not in accepted:
            return self._refusal(outcome)
        try:
            return read(outcome)
        except _NO_ANSWER as error:
            what = f"{outcome.status} with something that is not its answer ({error!r})"
            return _Failure(InferenceError(f"{self._service} answered {what}", permanent=False), sick=True)

    def _refusal(self, reply: Reply) -> _Failure:
        status = reply.status
        wait = retry_after_seconds(reply.headers.get("retry-after", "")) if status in (429, 503) else None
        permanent = 400 <= status < 500 and status not in _NOT_REFUSALS
        error = InferenceError(
            f"{self._service} answered {status}: {problem_detail(reply.body)}", permanent, wait
        )
        sick = (
            status >= 500 and wait is None
        )  # one that says when to come again is there and knows what it lacks
        return _Failure(error, again=status in _WORTH_ANOTHER, sick=sick, wait_seconds=wait or 0.0)


def retry_after_seconds(header: str) -> float | None:
    """Read a Retry-After header, which gives seconds or a date (RFC 9110, 10.2.3); None for anything else."""
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
