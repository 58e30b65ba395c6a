"""People who comment without an account: what their browser remembers, and what tells them from simple programs."""

from __future__ import annotations

import time
from typing import Final

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse

from blog_site.articles.hot import GUEST_COOKIE

from .models import Comment

_SALT: Final = "comments.guests"
KEPT_COMMENTS: Final = 20  # the newest; a cookie has an end
KEPT_SECONDS: Final = 30 * 24 * 3600
# A person needs longer to write a comment than a program to find the form and send it.
WRITTEN_IN_SECONDS: Final = 3.0


def remembered_comments(request: HttpRequest) -> tuple[int, ...]:
    """The comments that this browser has written as a guest."""
    cookie = request.get_signed_cookie(GUEST_COOKIE, default="", salt=_SALT, max_age=KEPT_SECONDS) or ""
    return tuple(int(number) for number in cookie.split(".") if number.isdigit())


def remember_comment(request: HttpRequest, response: HttpResponse, comment: Comment) -> None:
    """Let the browser show its guest a comment that waits."""
    numbers = (*remembered_comments(request), comment.pk)[-KEPT_COMMENTS:]
    response.set_signed_cookie(
        GUEST_COOKIE,
        ".".join(map(str, numbers)),
        salt=_SALT,
        max_age=KEPT_SECONDS,
        httponly=True,
        samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )


def stamp_form() -> str:
    """A value for a form that says, signed, when it was made."""
    return signing.dumps(time.time(), salt=_SALT)


def was_written_by_hand(stamp: str) -> bool:
    """Whether a form that comes back was on somebody's screen for as long as writing takes."""
    try:
        made_at = signing.loads(stamp, salt=_SALT)
    except signing.BadSignature:
        return False
    return bool(time.time() - float(made_at) >= WRITTEN_IN_SECONDS)
