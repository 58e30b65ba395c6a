from __future__ import annotations

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.client.breaker import CircuitBreaker, Permit
from ml.client.errors import CircuitOpen
from tests.ml.client.test_budget import Clock


def make_breaker(clock: Clock, failures: int = 3) -> CircuitBreaker:
    return CircuitBreaker(
        "the service",
        failures=failures,
        first_pause_seconds=1.0,
        longest_pause_seconds=4.0,
        clock=clock,
        uniform=lambda low, high: 1.0,
    )


def report(breaker: CircuitBreaker, *, healthy: bool, times: int = 1) -> None:
    for _ in range(times):
        with breaker.admit() as permit:
            permit.report(healthy=healthy)


def test_it_opens_after_failures_in_a_row_and_says_when_it_will_try_again() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    report(breaker, healthy=False, times=2)
    report(breaker, healthy=True)
    report(breaker, healthy=False, times=2)
    assert breaker.state == "closed"
    report(breaker, healthy=False)
    assert breaker.state == "open"
    clock.now = 0.25
    with pytest.raises(CircuitOpen, match=r"the service has failed repeatedly .* in 0.8 s") as caught:
        breaker.admit()
    assert caught.value.retry_after_seconds == pytest.approx(0.75)
    assert caught.value.permanent is False


def test_a_probe_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    report(breaker, healthy=False, times=3)
    clock.now = 1.0
    assert breaker.state == "half-open"
    report(breaker, healthy=True)
    assert breaker.state == "closed"


def test_only_one_caller_at_a_time_probes() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    report(breaker, healthy=False, times=3)
    clock.now = 1.0
    with breaker.admit():
        for _ in range(5):
            with pytest.raises(CircuitOpen):
                breaker.admit()


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    report(breaker, healthy=False, times=3)
    for pause in (1.0, 2.0, 4.0, 4.0):
        clock.now += pause - 0.01
        assert breaker.state == "open"
        clock.now += 0.01
        report(breaker, healthy=False)
    clock.now += 4.0
    report(breaker, healthy=True)
    report(breaker, healthy=False, times=3)
    clock.now += 1.0
    assert breaker.state == "half-open"


def test_a_probe_that_was_broken_off_lets_the_next_caller_probe() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    report(breaker, healthy=False, times=3)
    clock.now = 1.0
    with pytest.raises(KeyboardInterrupt), breaker.admit():
        raise KeyboardInterrupt
    report(breaker, healthy=True)
    assert breaker.state == "closed"


def test_an_answer_from_before_the_failures_does_not_close_it() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    slow = breaker.admit()
    report(breaker, healthy=False, times=3)
    slow.report(healthy=True)
    with slow:
        pass
    assert breaker.state == "open"


def test_of_many_threads_one_probes() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    report(breaker, healthy=False, times=3)
    clock.now = 1.0
    barrier, admitted = threading.Barrier(16), []

    def try_it() -> None:
        barrier.wait()
        with contextlib.suppress(CircuitOpen):
            admitted.append(breaker.admit())

    threads = [threading.Thread(target=try_it) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 1


EVENTS = st.one_of(
    st.just("admit"), st.sampled_from(["healthy", "sick", "broken off"]), st.floats(0.0, 3.0).map(lambda s: s)
)


@given(st.lists(EVENTS, max_size=120))
def test_whatever_happens_failures_in_a_row_open_it_and_one_probe_at_a_time_goes_out(
    events: list[str | float],
) -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    out: list[Permit] = []
    for event in events:
        if isinstance(event, float):
            clock.now += event
            continue
        state = breaker.state
        if event == "admit":
            try:
                out.append(breaker.admit())
                assert state != "open"
            except CircuitOpen as refusal:
                assert state != "closed"
                assert refusal.retry_after_seconds is not None
                assert 0 < refusal.retry_after_seconds <= 4.0
        elif out:
            with out.pop(0) as permit:
                if event != "broken off":
                    permit.report(healthy=event == "healthy")
        if breaker.state != "closed":
            probes = [permit for permit in out if permit.probe and permit.era == breaker._era]
            assert len(probes) <= 1
    # However it was left, it recovers: what is out comes back, time passes, the service is well.
    for permit in out:
        with permit:
            pass
    clock.now += 10.0
    report(breaker, healthy=True)
    assert breaker.state == "closed"
