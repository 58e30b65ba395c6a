"""Guessing passwords ends soon, at every door, and shuts out nobody but who guesses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.contrib.auth import authenticate
from django.core.cache import cache
from django.db import connection
from django.test import Client, RequestFactory
from django.utils import timezone

from blog_site.allowances import TooMany
from blog_site.limits import Rate
from blog_site.users.models import FailedSignIn, User
from tests.blog import PASSWORD, make_user

pytestmark = pytest.mark.django_db

FAILURES = 3
ELSEWHERE = "203.0.113.9"


@pytest.fixture(autouse=True)
def _few_failures(settings) -> Iterator[None]:
    cache.clear()
    settings.AXES_FAILURE_LIMIT = FAILURES
    yield
    cache.clear()


@pytest.fixture
def writer() -> User:
    return make_user("writer", is_staff=True)


def sign_in(
    password: str, *, username: str = "writer", door: str = "/sign-in/", address: str = "127.0.0.1", **extra
):
    kind = {"content_type": "application/json"} if door.startswith("/api/") else {}
    credentials = {"username": username, "password": password}
    return Client(REMOTE_ADDR=address).post(door, credentials, **kind, **extra)


def fail(times: int = FAILURES, **given: str) -> None:
    for number in range(times):
        assert sign_in(f"guess {number}", **given).status_code == 200


def test_after_so_many_failures_even_the_right_password_has_to_wait(writer: User) -> None:
    fail()

    refused = sign_in(PASSWORD)

    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 15 * 60
    assert "从你这里试了太多次登录" in refused.content.decode()
    assert PASSWORD not in refused.content.decode()


def test_the_owner_still_gets_in_from_elsewhere(writer: User) -> None:
    fail(times=FAILURES)

    assert sign_in(PASSWORD, address=ELSEWHERE).status_code == 302


def test_other_accounts_still_get_in_from_there(writer: User) -> None:
    make_user("another")
    fail()

    assert sign_in(PASSWORD, username="another").status_code == 302


@pytest.mark.parametrize("door", ["/sign-in/", "/admin/login/", "/api/v1/auth/token/"])
def test_whoever_is_locked_out_is_so_at_every_door(writer: User, door: str) -> None:
    fail(door="/admin/login/")

    refused = sign_in(PASSWORD, door=door)

    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0


def test_failures_at_the_api_count_as_well(writer: User) -> None:
    for number in range(FAILURES):
        assert sign_in(f"guess {number}", door="/api/v1/auth/token/").status_code == 400

    assert sign_in(PASSWORD).status_code == 429


def test_getting_in_makes_the_failures_before_it_good(writer: User) -> None:
    fail(times=FAILURES - 1)
    assert sign_in(PASSWORD).status_code == 302
    fail(times=FAILURES - 1)

    assert sign_in(PASSWORD).status_code == 302


def test_the_lock_opens_by_itself(writer: User) -> None:
    fail()
    FailedSignIn.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))

    assert sign_in(PASSWORD).status_code == 302


def test_being_refused_does_not_make_the_wait_longer(writer: User) -> None:
    fail()
    FailedSignIn.objects.update(attempt_time=timezone.now() - timedelta(minutes=14))

    waits = [int(sign_in("guess")["Retry-After"]) for _ in range(2)]

    assert max(waits) <= 60


@pytest.mark.parametrize("names", [("writer", "Writer", "WRITER"), ("nobody", "nobody", "nobody")])
def test_names_of_another_case_and_of_nobody_are_counted_alike(writer: User, names: tuple[str, ...]) -> None:
    for name in names:
        sign_in("guess", username=name)

    assert sign_in(PASSWORD, username=names[0]).status_code == 429


def test_another_browser_at_the_same_address_is_no_way_round(writer: User) -> None:
    for number in range(FAILURES):
        sign_in("guess", headers={"User-Agent": f"browser {number}"})

    assert sign_in(PASSWORD).status_code == 429


def test_all_of_a_household_in_ipv6_are_one(writer: User) -> None:
    for number in range(FAILURES):
        fail(times=1, address=f"2001:db8:1:2::{number}")

    assert sign_in(PASSWORD, address="2001:db8:1:2:ffff::1").status_code == 429
    assert sign_in(PASSWORD, address="2001:db8:1:3::1").status_code == 302


def test_behind_the_gateway_it_is_the_readers_address_that_is_locked(writer: User, settings) -> None:
    settings.BEHIND_GATEWAY = True
    for number in range(FAILURES):
        sign_in(f"guess {number}", headers={"X-Real-IP": ELSEWHERE})

    assert sign_in(PASSWORD, headers={"X-Real-IP": ELSEWHERE}).status_code == 429
    assert sign_in(PASSWORD, headers={"X-Real-IP": "203.0.113.10"}).status_code == 302


def test_an_address_cannot_try_one_password_at_every_account(settings) -> None:
    settings.ALLOWANCES = settings.ALLOWANCES | {"sign_ins": [Rate(uses=2, seconds=3600)]}
    settings.ALLOWANCE_ADDRESS_FACTOR = 3

    answers = [sign_in("123456", username=f"reader{number}").status_code for number in range(7)]

    assert answers == [200] * 6 + [429]


@pytest.mark.django_db(transaction=True)
def test_of_many_guesses_at_the_same_moment_no_more_are_looked_at(writer: User, settings) -> None:
    settings.ALLOWANCES = settings.ALLOWANCES | {"sign_ins": [Rate(uses=4, seconds=3600)]}
    settings.AXES_FAILURE_LIMIT = 1000
    together = Barrier(8)

    def guess(number: int) -> bool:
        together.wait(30)
        try:
            authenticate(RequestFactory().post("/sign-in/"), username="writer", password=f"guess {number}")
        except TooMany:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as threads:
        looked_at = sum(threads.map(guess, range(8)))

    assert looked_at == 4


def test_a_program_on_this_machine_is_not_locked_out(writer: User) -> None:
    fail()

    assert authenticate(username="writer", password=PASSWORD) == writer


def test_an_administrator_sees_who_is_locked_out_and_lets_them_try_again(writer: User) -> None:
    fail(address=ELSEWHERE)
    administrator = Client()
    administrator.force_login(make_user("admin", is_staff=True, is_superuser=True))
    page = administrator.get("/admin/users/failedsignin/")
    failed = FailedSignIn.objects.get()

    assert ELSEWHERE in page.content.decode()
    administrator.post(f"/admin/users/failedsignin/{failed.pk}/delete/", {"post": "yes"})

    assert sign_in(PASSWORD, address=ELSEWHERE).status_code == 302


def test_no_password_is_kept_with_a_failure(writer: User) -> None:
    sign_in("a-mistyped-secret")

    kept = FailedSignIn.objects.values().get()
    assert "a-mistyped-secret" not in str(kept)
