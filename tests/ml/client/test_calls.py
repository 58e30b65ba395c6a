"""Calls driven by hand: no socket, no clock but the test's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.client import CallPolicy, CircuitOpen, InferenceError
from ml.client.calls import DEADLINE_HEADER, Caller, NoReply, Pause, Reply, Request, Send, retry_after_seconds
from tests.ml.client.test_budget import Clock

OK = Reply(200, {}, b"answer", 0.0)
BUSY = Reply(429, {}, b"", 0.0)
AWAY = NoReply("connection refused")


@dataclass
class World:
    """A service whose outcomes are given, each after some seconds."""

    policy: CallPolicy = field(default_factory=CallPolicy)
    clock: Clock = field(default_factory=Clock)
    sent: list[Send] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caller = Caller("the service", self.policy, clock=self.clock, uniform=lambda low, high: high)

    def ask(
        self, outcomes: Sequence[Reply | NoReply], timeout: float = 5.0, seconds_each: float = 0.0
    ) -> bytes:
        call = self.caller.call(Request("POST", "/v1/predict"), timeout, lambda reply: reply.body)
        remaining = iter(outcomes)
        outcome: Reply | NoReply | None = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as end:
                answer: bytes = end.value
                return answer
            if isinstance(step, Pause):
                self.paused.append(step.seconds)
                self.clock.now += step.seconds
                outcome = None
            else:
                self.sent.append(step)
                self.clock.now += min(seconds_each, step.timeout_seconds)
                outcome = next(remaining)


def test_the_time_that_is_left_shrinks_from_attempt_to_attempt_and_goes_along_in_a_header() -> None:
    world = World()
    assert world.ask([AWAY, AWAY, OK], timeout=5.0, seconds_each=1.0) == b"answer"
    assert [send.timeout_seconds for send in world.sent] == pytest.approx([5.0, 3.95, 2.85])
    assert [send.request.headers[DEADLINE_HEADER] for send in world.sent] == ["5000", "3950", "2850"]


def test_pauses_double_and_no_call_has_more_attempts_than_the_policy_says() -> None:
    world = World(replace(CallPolicy(), attempts=5, longest_pause_seconds=0.3, breaker_failures=99))
    with pytest.raises(InferenceError, match="the service did not answer: connection refused"):
        world.ask([AWAY] * 9)
    assert world.paused == pytest.approx([0.05, 0.1, 0.2, 0.3])
    assert len(world.sent) == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422])
def test_a_permanent_refusal_is_never_asked_about_again(status: int) -> None:
    world = World()
    with pytest.raises(InferenceError) as caught:
        world.ask([Reply(status, {}, b'{"detail": "no"}', 0.0)])
    assert caught.value.permanent
    assert len(world.sent) == 1


def test_a_fault_of_the_service_is_not_asked_about_again_but_may_be_later() -> None:
    world = World()
    with pytest.raises(InferenceError) as caught:
        world.ask([Reply(500, {}, b"", 0.0)])
    assert not caught.value.permanent
    assert len(world.sent) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_is_asked_again_when_it_said(status: int) -> None:
    world = World()
    world.ask([Reply(status, {"retry-after": "2"}, b"", 0.0), OK])
    assert world.paused == pytest.approx([2.05])


def test_a_wish_beyond_the_deadline_ends_the_call_at_once_and_is_passed_on() -> None:
    world = World()
    with pytest.raises(InferenceError) as caught:
        world.ask([Reply(429, {"retry-after": "30"}, b"", 0.0)])
    assert caught.value.retry_after_seconds == 30
    assert world.clock.now == 0


def test_a_date_is_a_wish_too_and_nonsense_is_none() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert retry_after_seconds(soon) == pytest.approx(20, abs=2)
    assert retry_after_seconds("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
    for nonsense in ("", "soon", "-1", "1.5", "9" * 400, "٣", "Sun, 99 Nov 1994 08:49:37 GMT"):
        assert retry_after_seconds(nonsense) is None


def test_without_a_budget_a_failure_is_final() -> None:
    world = World(replace(CallPolicy(), retry_reserve=2, retries_per_second=0, breaker_failures=99))
    with pytest.raises(InferenceError):
        world.ask([AWAY] * 3)
    assert len(world.sent) == 3
    with pytest.raises(InferenceError):
        world.ask([AWAY] * 3)
    assert len(world.sent) == 4


def test_a_dead_service_is_left_alone_and_tried_again_by_one_call() -> None:
    world = World(replace(CallPolicy(), breaker_failures=4, breaker_first_pause_seconds=8.0))
    with pytest.raises(InferenceError):
        world.ask([AWAY] * 3)
    with pytest.raises(
        InferenceError, match="connection refused"
    ):  # what it met, not that the circuit opened on it
        world.ask([AWAY])
    assert len(world.sent) == 4
    with pytest.raises(CircuitOpen) as caught:
        world.ask([])
    assert caught.value.retry_after_seconds == pytest.approx(8.0 * 1.2, rel=0.1)
    assert len(world.sent) == 4
    world.clock.now += 10
    assert world.ask([OK]) == b"answer"
    assert world.caller.breaker.state == "closed"


def test_a_service_that_answers_without_saying_when_to_come_again_is_left_alone_too() -> None:
    world = World(replace(CallPolicy(), attempts=1, breaker_failures=3))
    for _ in range(3):
        with pytest.raises(InferenceError):
            world.ask([Reply(503, {}, b"<html>bad gateway</html>", 0.0)])
    with pytest.raises(CircuitOpen):
        world.ask([])


def test_refusals_a_full_queue_and_a_missing_model_do_not_open_the_circuit() -> None:
    world = World(replace(CallPolicy(), attempts=1))
    for outcome in [BUSY, Reply(422, {}, b"", 0.0), Reply(503, {"retry-after": "1"}, b"", 0.0)] * 10:
        with pytest.raises(InferenceError):
            world.ask([outcome])
    assert world.caller.breaker.state == "closed"


def test_no_time_left_asks_nobody() -> None:
    world = World()
    with pytest.raises(InferenceError, match="no time was left"):
        world.ask([], timeout=0.0)
    assert world.sent == []
    assert world.ask([OK]) == b"answer"


def test_a_call_that_is_dropped_while_it_probes_lets_the_next_one_probe() -> None:
    world = World(replace(CallPolicy(), attempts=1, breaker_failures=1))
    with pytest.raises(InferenceError):
        world.ask([AWAY])
    world.clock.now += 10
    dropped = world.caller.call(Request("GET", "/"), 1.0, lambda reply: reply.body)
    assert isinstance(next(dropped), Send)
    with pytest.raises(CircuitOpen):
        world.ask([OK])
    dropped.close()
    assert world.ask([OK]) == b"answer"


OUTCOMES = st.one_of(
    st.just(OK),
    st.just(AWAY),
    st.just(NoReply("wrong address", permanent=True)),
    st.builds(
        Reply,
        st.sampled_from([400, 408, 422, 429, 500, 502, 503, 504, 301]),
        st.sampled_from([{}, {"retry-after": "1"}, {"retry-after": "100"}]),
        st.just(b""),
        st.just(0.0),
    ),
)


@given(
    st.lists(st.lists(OUTCOMES, min_size=3, max_size=3), max_size=30),
    st.floats(0.01, 10.0),
    st.floats(0.0, 3.0),
)
def test_no_call_outlives_its_deadline_and_retries_keep_to_their_budget(
    calls: list[list[Reply | NoReply]], timeout: float, seconds_each: float
) -> None:
    world = World(replace(CallPolicy(), retry_reserve=4, retries_per_second=0))
    sent = 0
    for outcomes in calls:
        began = world.clock.now
        try:
            world.ask(outcomes, timeout, seconds_each)
        except CircuitOpen as error:
            assert error.retry_after_seconds is not None
        except InferenceError as error:
            assert not error.permanent or len(world.sent) > sent
        assert world.clock.now - began <= timeout + 1e-6
        sent = len(world.sent)
    assert len(world.sent) - len(calls) <= 0.1 * len(calls) + 4
