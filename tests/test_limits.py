"""Counting what is done, in one process and in several, at the same moment, and while Redis is away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from blog_site import limits
from blog_site.limits import Rate, network_of, parse_rate, spend
from tests.servers import find_free_port

HOURLY = Rate(uses=20, seconds=3600)


@pytest.fixture(autouse=True)
def _at_the_beginning_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test begins in one period and ends in the next."""
    monkeypatch.setattr(limits.time, "time", lambda: 1_800_000_000.0)


def use(who: str, *, rate: Rate = HOURLY, purpose: str = "tests") -> int:
    return spend(purpose=purpose, who=who, rate=rate)


def test_what_is_left_is_let_through_and_the_rest_has_to_wait(request: pytest.FixtureRequest) -> None:
    rate = Rate(uses=2, seconds=3600)

    waits = [use("a", rate=rate, purpose=request.node.name) for _ in range(3)]

    assert waits == [0, 0, 3600 - 1_800_000_000 % 3600]


def test_people_and_purposes_are_counted_apart(request: pytest.FixtureRequest) -> None:
    once, name = Rate(uses=1, seconds=60), request.node.name

    assert use("a", rate=once, purpose=name) == 0
    assert use("b", rate=once, purpose=name) == 0
    assert use("a", rate=once, purpose=f"{name}-of-another-kind") == 0
    assert use("a", rate=once, purpose=name) > 0


def test_the_next_period_begins_anew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    once, name = Rate(uses=1, seconds=60), request.node.name
    use("a", rate=once, purpose=name)
    wait = use("a", rate=once, purpose=name)

    monkeypatch.setattr(limits.time, "time", lambda: 1_800_000_000.0 + wait)

    assert use("a", rate=once, purpose=name) == 0


def test_of_many_at_the_same_moment_exactly_so_many_get_through(request: pytest.FixtureRequest) -> None:
    together = Barrier(8)

    def use_ten() -> list[int]:
        together.wait(30)
        return [use("a", purpose=request.node.name) for _ in range(10)]

    with ThreadPoolExecutor(8) as threads:
        waits = [wait for each in [threads.submit(use_ten) for _ in range(8)] for wait in each.result()]

    assert (waits.count(0), len(waits)) == (HOURLY.uses, 80)


@pytest.mark.servers
def test_what_another_process_has_counted_counts_here(request: pytest.FixtureRequest) -> None:
    once = Rate(uses=1, seconds=3600)
    use("a", rate=once, purpose=request.node.name)
    limits.forget_counts()  # as a process that has just begun

    assert use("a", rate=once, purpose=request.node.name) > 0


def test_while_redis_is_away_a_process_goes_by_its_own_counts(
    request: pytest.FixtureRequest, settings
) -> None:
    address = f"redis://127.0.0.1:{find_free_port()}/0"
    settings.CACHES = {"default": {"BACKEND": "blog_site.cache.ForgivingRedisCache", "LOCATION": address}}

    waits = [use("a", rate=Rate(uses=3, seconds=3600), purpose=request.node.name) for _ in range(5)]

    assert [wait == 0 for wait in waits] == [True, True, True, False, False]


def test_a_count_that_was_thrown_out_lets_through_and_does_not_fail(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(*args: object) -> int:
        raise ValueError("no such key")

    monkeypatch.setattr(limits._of_this_process, "incr", forgotten)

    assert use("a", rate=Rate(uses=1, seconds=60), purpose=request.node.name) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_one_household_is_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("text", ["", "60", "60/week", "-1/minute", "1.5/minute", "60/minute/minute"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 60/minute"):
        parse_rate(text)


def test_a_rate_is_read() -> None:
    assert parse_rate(" 5/day ") == Rate(uses=5, seconds=86_400)
