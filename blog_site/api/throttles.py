"""How often one may ask the API: what changes something counts with the pages' own allowances."""

from __future__ import annotations

from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from blog_site.addresses import client_address
from blog_site.allowances import OTHER, TooMany, use_allowance


class Allowance(BaseThrottle):
    """Refuses what goes beyond settings.ALLOWANCES; DRF makes Retry-After of `wait`.

    A view whose changes have an allowance of their own names it as `allowance`.
    """

    def __init__(self) -> None:
        self._wait_seconds = 0

    def allow_request(self, request: Request, view: APIView) -> bool:
        try:
            use_allowance(
                purpose=_purpose(request, view), user=request.user, address=client_address(request.META)
            )
        except TooMany as refusal:
            self._wait_seconds = refusal.retry_after_seconds
            return False
        return True

    def wait(self) -> float:
        return self._wait_seconds


def _purpose(request: Request, view: APIView) -> str:
    if request.method not in SAFE_METHODS:
        return getattr(view, "allowance", OTHER)
    return "api_signed_in_reads" if request.user.is_authenticated else "api_reads"
