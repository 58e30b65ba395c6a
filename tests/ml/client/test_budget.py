from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from ml.client.budget import RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_budget(
    clock: Clock, *, ratio: float = 0.1, reserve: float = 10, per_second: float = 0.0
) -> RetryBudget:
    return RetryBudget(ratio=ratio, reserve=reserve, per_second=per_second, clock=clock)


def count_retries(budget: RetryBudget, wanted: int) -> int:
    return sum(budget.withdraw() for _ in range(wanted))


def test_a_burst_gets_the_reserve_and_then_one_retry_for_ten_calls() -> None:
    budget = make_budget(Clock())
    assert count_retries(budget, 50) == 10
    for _ in range(100):
        budget.deposit()
    assert count_retries(budget, 50) in (9, 10)  # tenths do not add up exactly


def test_what_is_saved_up_never_exceeds_the_reserve() -> None:
    budget = make_budget(Clock(), reserve=3)
    for _ in range(1000):
        budget.deposit()
    assert count_retries(budget, 50) == 3


def test_a_client_that_calls_rarely_earns_retries_by_waiting() -> None:
    clock = Clock()
    budget = make_budget(clock, per_second=0.1)
    assert count_retries(budget, 50) == 10
    clock.now = 9.9
    assert count_retries(budget, 50) == 0
    clock.now = 10.1
    assert count_retries(budget, 50) == 1


@given(st.lists(st.one_of(st.just("call"), st.just("retry"), st.floats(0, 100)), max_size=200))
def test_retries_never_exceed_the_ratio_of_calls_beside_reserve_and_trickle(
    events: list[str | float],
) -> None:
    clock = Clock()
    budget = make_budget(clock, ratio=0.1, reserve=5, per_second=0.2)
    calls = retries = 0
    for event in events:
        if event == "call":
            calls += 1
            budget.deposit()
        elif event == "retry":
            retries += budget.withdraw()
        else:
            assert isinstance(event, float)
            clock.now += event
        assert retries <= 0.1 * calls + 5 + 0.2 * clock.now + 1e-6


def test_threads_do_not_spend_a_retry_twice() -> None:
    budget = make_budget(Clock(), reserve=1000)
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(count_retries(budget, 400))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000
