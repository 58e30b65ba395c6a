"""What one reader may do how often, whatever page it is done from; more is refused with 429, and nothing typed is lost.

Counted for the account, and for the address with all accounts behind it: a school or a telephone network has one
address for many, so it may do several times what one account may. Rates stand in settings.ALLOWANCES.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .addresses import client_address
from .limits import Rate, network_of, spend

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
OTHER: Final = "writes"  # what every page that changes something counts as, unless it stands below
# Signing in counts where the password is looked at (users/lockout.py), since it has several doors.
PURPOSES: Final[Mapping[str, str]] = {
    "comments:post_comment": "comments",
    "comments:edit_comment": "comments",
    "comments:like_comment": "likes",
    "comments:report_comment": "reports",
    "comments:draft_sentiment": "drafts",
    "articles:insert_image": "uploads",
    "media:upload": "uploads",
    "users:sign_up": "sign_ups",
    "users:change_password": "passwords",
}
_LONG: Final = 40  # characters: a text of more has been written, and is shown to its writer again

GetResponse = Callable[[HttpRequest], HttpResponse]


class TooMany(Exception):
    """Somebody has done something more often than they may; they may do it again after `retry_after_seconds`."""

    def __init__(self, purpose: str, retry_after_seconds: int) -> None:
        super().__init__(f"too many {purpose}: again in {retry_after_seconds} s")
        self.purpose = purpose
        self.retry_after_seconds = retry_after_seconds


def use_allowance(*, purpose: str, user: AbstractUser | AnonymousUser | None, address: str) -> None:
    """Count one use of an account's and of an address's allowance; raises TooMany.

    What is refused to an account does not count against its address, where others are.
    """
    if user is not None and user.is_authenticated:
        spend_all(purpose=purpose, who=f"account {user.pk}", times=1)
        spend_all(
            purpose=purpose, who=f"address {network_of(address)}", times=settings.ALLOWANCE_ADDRESS_FACTOR
        )
    else:
        spend_all(purpose=purpose, who=f"nobody at {network_of(address)}", times=1)


def spend_all(*, purpose: str, who: str, times: int = 1) -> None:
    """Count one use at each of a purpose's rates, `times` over, the shortest period first; raises TooMany."""
    for rate in sorted(settings.ALLOWANCES[purpose], key=lambda rate: rate.seconds):
        wait = spend(purpose=purpose, who=who, rate=Rate(rate.uses * times, rate.seconds))
        if wait:
            raise TooMany(purpose, wait)


class AllowanceMiddleware:
    """Counts every request to a page that may change something, and answers what is refused, here or in a view.

    The API counts for itself, since only its views know whose token came with a request.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        match = request.resolver_match
        if request.method in SAFE_METHODS or match is None or "api" in match.namespaces:
            return None
        try:
            use_allowance(
                purpose=PURPOSES.get(match.view_name, OTHER),
                user=request.user,
                address=client_address(request.META),
            )
        except TooMany as refusal:
            return refuse(request, refusal)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return refuse(request, exception) if isinstance(exception, TooMany) else None


def refuse(request: HttpRequest, refusal: TooMany) -> HttpResponse:
    """Answer with 429: a page with all that was typed in it, or JSON to a script that asks for it."""
    seconds = refusal.retry_after_seconds
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        problem = {
            "title": _("请慢一点"),
            "status": 429,
            "code": "throttled",
            "detail": say_when(seconds),
            "fields": {},
        }
        response: HttpResponse = JsonResponse(problem, status=429, content_type="application/problem+json")
    else:
        page = {"purpose": refusal.purpose, "when": say_when(seconds), **_keep_typed(request)}
        response = render(request, "429.html", page, status=429)
    response["Retry-After"] = str(seconds)
    response["Cache-Control"] = "no-store"
    return response


def say_when(seconds: int) -> str:
    """Say after how long something may be done again."""
    if seconds < 60:
        return ngettext("请等 %(count)d 秒再试。", "请等 %(count)d 秒再试。", seconds) % {"count": seconds}
    minutes = math.ceil(seconds / 60)
    if minutes <= 90:
        return ngettext("请等 %(count)d 分钟再试。", "请等 %(count)d 分钟再试。", minutes) % {
            "count": minutes
        }
    hours = math.ceil(seconds / 3600)
    return ngettext("请等 %(count)d 小时再试。", "请等 %(count)d 小时再试。", hours) % {"count": hours}


def _keep_typed(request: HttpRequest) -> dict[str, Any]:
    """Give what came with a form, to be sent again; a form with a password in it is filled in anew."""
    fields = [(name, value) for name, values in request.POST.lists() for value in values]
    if any("password" in name for name, _value in fields):
        return {"again": request.get_full_path()}
    fields = [(name, value) for name, value in fields if name != "csrfmiddlewaretoken"]
    written = [(name, value) for name, value in fields if len(value) > _LONG or "\n" in value]
    others = [field for field in fields if field not in written]
    return {"action": request.get_full_path(), "written": written, "others": others}
