"""What the clients ask, as calls that either of them can drive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ml.client.answers import (
    PredictResponse,
    Readiness,
    parse_answer,
    parse_readiness,
    render_request,
)
from ml.client.calls import Call, Caller, Request
from ml.client.errors import InferenceError

_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_TRACEPARENT: Final = re.compile(
    r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,128}"
)  # W3C Trace Context


def ask_predictions(
    caller: Caller,
    texts: Sequence[str],
    explain: bool,
    timeout_seconds: float,
    request_id: str,
    traceparent: str,
) -> Call[PredictResponse]:
    """Ask what each text expresses."""
    headers = trace_headers(request_id, traceparent)
    request = Request("POST", "/v1/predict", render_request(texts, explain), headers)
    return caller.call(
        request, timeout_seconds, lambda reply: parse_answer(reply.body, texts, explain, reply.seconds * 1000)
    )


def ask_readiness(caller: Caller, timeout_seconds: float) -> Call[Readiness]:
    """Ask which model is served."""
    request = Request("GET", "/readyz")
    return caller.ask_anyway(
        request, timeout_seconds, lambda reply: parse_readiness(reply.body), accepted=(200, 503)
    )


def trace_headers(request_id: str, traceparent: str) -> dict[str, str]:
    """Give the headers by which a request is found again in logs; raises ValueError for what no header can be."""
    headers = {}
    if request_id:
        if not _REQUEST_ID.fullmatch(request_id):
            raise ValueError(f"request id {request_id!r:.80}: expected 1 to 128 visible ASCII characters")
        headers["X-Request-ID"] = request_id
    if traceparent:
        if not (traceparent.isascii() and traceparent.isprintable() and _TRACEPARENT.fullmatch(traceparent)):
            raise ValueError(
                f"traceparent {traceparent!r:.80}: expected version-trace-parent-flags in hexadecimal"
            )
        headers["traceparent"] = traceparent
    return headers


def service_name(base_url: str) -> str:
    """Name the service as errors do."""
    return f"inference service at {base_url}"


def wrong_address(base_url: str, error: Exception) -> InferenceError:
    """Say that the address is none."""
    return InferenceError(f"inference service address {base_url!r} is wrong: {error}", permanent=True)
