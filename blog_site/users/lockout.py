"""Guessing passwords: who has failed too often at one account is locked out of it, from where they failed.

django-axes keeps the failures in the database, so they outlive a restart and a cache that is away. They are of an
account and an address together: nobody can lock a stranger out of their own account. Attempts are counted as well,
before the password is looked at: of many at the same moment no more get through than of many one after another.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.exceptions import AxesBackendPermissionDenied
from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest
from django.utils import timezone

from blog_site.addresses import client_address
from blog_site.allowances import TooMany, spend_all
from blog_site.limits import network_of

logger = logging.getLogger(__name__)

RECORDING_ATTEMPTS = 5


class LockOut(AxesStandaloneBackend):
    """The first authentication backend: it knows nobody, and refuses those who are locked out.

    It stands behind every door that takes a password: the page, the admin's, the API's. Each of them lets TooMany
    through, which becomes an answer with 429.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **rest: Any,
    ) -> None:
        if request is None:  # asked by a program on this machine
            return
        place = network_of(client_address(request.META))
        spend_all(purpose="sign_ins", who=f"{name_of(request, {'username': username})} at {place}")
        spend_all(purpose="sign_ins", who=f"address {place}", times=settings.ALLOWANCE_ADDRESS_FACTOR)
        try:
            super().authenticate(request, username=username, password=password, **rest)
        except AxesBackendPermissionDenied as refusal:
            raise TooMany("sign_ins", _seconds_left(request, username)) from refusal


class FailureRecord(AxesDatabaseHandler):
    """Axes' own record of failures. Two at the same moment may be in each other's way: MySQL then lets one go."""

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **rest: Any
    ) -> None:
        for _attempt in range(RECORDING_ATTEMPTS):
            try:
                super().user_login_failed(sender, credentials, request, **rest)
            except OperationalError as error:
                refusal = error
            else:
                return
        # Not the reader's mistake; the attempt has been counted, if not the failure.
        logger.warning("a failed sign-in was not recorded: %s", refusal)


def address_of(request: HttpRequest) -> str:
    """For axes: the address failures are kept under, which stands for its network; its column holds no other kind."""
    return network_of(client_address(request.META)).partition("/")[0]


def name_of(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str:
    """For axes: the account failures are kept under. A database may take names of other cases for the same."""
    return str((credentials or {}).get("username") or "").casefold()[:150]


def _seconds_left(request: HttpRequest, username: str | None) -> int:
    failed = AccessAttempt.objects.filter(
        username=name_of(request, {"username": username}), ip_address=address_of(request)
    )
    newest = failed.order_by("-attempt_time").values_list("attempt_time", flat=True).first()
    ends = (newest or timezone.now()) + settings.AXES_COOLOFF_TIME
    return max(1, math.ceil((ends - timezone.now()).total_seconds()))
