"""Which request a piece of work belongs to: from the browser's through the queue to the model's log, by one id.

`X-Request-ID` names a request, W3C `traceparent` its place in a distributed trace. Both are taken over where a caller
gives good ones; the id is made where it does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from celery import Task
from django.http import HttpRequest, HttpResponse

from ml.trace import Trace, request_id_of, trace_of

REQUEST_ID: Final = "X-Request-ID"
TRACE_PARENT: Final = "traceparent"


@dataclass(frozen=True)
class Origin:
    """The request that the present work is done for; empty where there is none."""

    request_id: str = ""
    trace: Trace | None = None

    @property
    def traceparent(self) -> str:
        """The header for whatever follows from the request."""
        return self.trace.header.decode() if self.trace else ""

    def headers(self) -> dict[str, str]:
        """Give what a message or a request that follows from this one carries."""
        found = {REQUEST_ID: self.request_id, TRACE_PARENT: self.traceparent}
        return {name: value for name, value in found.items() if value}


_NOBODY: Final = Origin()
_origin: ContextVar[Origin] = ContextVar("origin", default=_NOBODY)


def current_origin() -> Origin:
    """The request that this thread works for."""
    return _origin.get()


@contextmanager
def working_for(headers: Mapping[str, Any], request_id: str = "") -> Iterator[Origin]:
    """Do the block's work for the request that these headers name; `request_id` where they name none."""
    given = {
        name: str(headers.get(name) or "").encode("latin-1", "replace") for name in (REQUEST_ID, TRACE_PARENT)
    }
    name = request_id_of(given[REQUEST_ID] or request_id.encode())
    origin = Origin(name.decode(), trace_of(given[TRACE_PARENT]))
    token = _origin.set(origin)
    try:
        yield origin
    finally:
        _origin.reset(token)


def trace_requests(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Django middleware: every answer, and every line that is logged on the way to it, names its request."""

    def answer(request: HttpRequest) -> HttpResponse:
        with working_for(request.headers) as origin:
            response = get_response(request)
        response[REQUEST_ID] = origin.request_id
        return response

    return answer


class TracedTask(Task):
    """A Celery task that works for the request that queued it; one that nobody queued is named by its own id."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with working_for(self.request.headers or {}, self.request.id or current_origin().request_id):
            return self.run(*args, **kwargs)


class OriginFilter(logging.Filter):
    """Gives every line the id of the request it is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_origin().request_id or "-"
        return True
