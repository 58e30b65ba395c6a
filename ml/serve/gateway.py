"""The outermost ASGI application: knows every request, lets it in or not, and sees it answered."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml.serve.admission import REQUEST_UNITS
from ml.serve.batcher import Abandoned, ComputationFailed, Expired
from ml.serve.exchange import Answer, DirectRoute, Exchange, deadline_of, overloaded, read_body
from ml.serve.problems import PROBLEM_TYPE, Problem, problem_document
from ml.serve.service import InferenceService
from ml.trace import REQUEST_ID, TRACE_PARENT, Trace, request_id_of, trace_of

log = logging.getLogger(__name__)
access_log = logging.getLogger("ml.serve.access")

# In a scope: whether the connection is still there, and the units by which its request counts as under way.
IS_CONNECTED: Final = "huisheng.is_connected"
ADMITTED_UNITS: Final = "huisheng.admitted_units"
_OPEN: Final = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
_METRICS: Final = "/metrics"
_CLIENT_WENT_AWAY: Final = 499  # in figures and the log; nobody is there to receive it


class Gateway:
    """Calls the routes that ask the model itself, and passes the others to the framework.

    The framework's routing and its dependencies would cost a short text a third of its time, so the routes that are
    asked most go past it; they stand in its OpenAPI document all the same.
    """

    def __init__(
        self, service: InferenceService, framework: ASGIApp, direct_routes: Sequence[DirectRoute]
    ) -> None:
        self.service = service
        self._framework = framework
        self._direct = {route.path: route.handler for route in direct_routes}
        token = service.settings.token
        self._authorization = f"Bearer {token}".encode() if token else None
        self._access_log = service.settings.access_log

    @property
    def direct_paths(self) -> frozenset[bytes]:
        """The addresses whose requests are let in or refused by their headers."""
        return frozenset(path.encode() for path in self._direct)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on the server's start and stop."""
        if scope["type"] != "http":
            await self._framework(scope, receive, send)
            return
        started = time.perf_counter()
        path: str = scope["path"]
        headers = dict(scope["headers"])
        request_id, trace = request_id_of(headers.get(REQUEST_ID)), trace_of(headers.get(TRACE_PARENT))
        extra = [(REQUEST_ID, request_id)]
        if trace is not None:
            extra.append((TRACE_PARENT, trace.header))
        texts, model = 0, None
        if path in self._direct:
            route = path
            exchange = Exchange(path, scope["query_string"], headers, request_id, trace)
            status = await self._answer_directly(exchange, scope, receive, send, extra)
            texts, model = exchange.texts, exchange.model
        elif not self._is_authorized(path, headers):
            route, status = "unknown", 401
            await _send_answer(send, self._refuse(_unauthorized(), path), extra)
        else:
            route, status = await self._pass_on(scope, receive, send, extra)
        seconds = time.perf_counter() - started
        self.service.metrics.count_request(route, status, seconds)
        if self._access_log:
            log_access(
                request_id=request_id,
                trace=trace,
                method=scope["method"],
                path=path,
                status=status,
                seconds=seconds,
                texts=texts,
                model=model,
            )

    async def _answer_directly(
        self,
        exchange: Exchange,
        scope: Scope,
        receive: Receive,
        send: Send,
        extra: list[tuple[bytes, bytes]],
    ) -> int:
        """Let a request's own route answer it; gives the status."""
        exchange.is_wanted = scope.get(IS_CONNECTED, exchange.is_wanted)
        try:
            if not self._is_authorized(exchange.path, exchange.headers):
                raise _unauthorized()
            if scope["method"] != "POST":
                raise Problem(
                    405, f"{scope['method']} {exchange.path}: Method Not Allowed", {"Allow": "POST"}
                )
            exchange.deadline = deadline_of(exchange.headers)
            limit = self.service.settings.max_body_bytes
            exchange.body = await read_body(receive, exchange.headers, limit, self.service.admission)
            exchange.units = self._admit(exchange, scope)
            answer = await self._direct[exchange.path](exchange)
        except Abandoned:
            self.service.metrics.count_refusal("abandoned")
            return _CLIENT_WENT_AWAY
        except Exception as error:
            answer = self._refuse(_problem_of(error), exchange.path)
        finally:
            if ADMITTED_UNITS in scope:
                self.service.admission.leave(scope[ADMITTED_UNITS])
        await _send_answer(send, answer, extra)
        return answer.status

    def _admit(self, exchange: Exchange, scope: Scope) -> int:
        """Count a request whose body is here as under way, where its connection has not; gives its units.

        A connection does so as soon as the body is there: many requests come in one turn of the loop, and each must
        see those before it. It knows the length only of a body that says it. Raises Problem 429 when there is too much
        under way.
        """
        admission = self.service.admission
        units = REQUEST_UNITS + len(exchange.body)
        counted: int | None = scope.get(ADMITTED_UNITS)
        if counted is None and admission.is_full:
            raise overloaded(admission.retry_after_seconds)
        if counted != units:
            if counted is not None:
                admission.leave(counted)
            scope[ADMITTED_UNITS] = units
            admission.enter(units)
        return units

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, extra: list[tuple[bytes, bytes]]
    ) -> tuple[str, int]:
        """Let the framework answer; gives the route's pattern and the status."""
        status = 500  # of a request that ends without an answer

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            await self._framework(scope, receive, send_more)
        except Exception:  # the framework has answered it and raises it again for whoever watches
            log.exception("unexpected failure at %s", scope["path"])
        # Unknown addresses share one name: whoever asks for random ones must not make endless series.
        return getattr(scope.get("route"), "path", "unknown"), status

    def _is_authorized(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        if self._authorization is None or path in _OPEN:
            return True
        if path == _METRICS and not self.service.settings.protect_metrics:
            return True
        return hmac.compare_digest(headers.get(b"authorization", b""), self._authorization)

    def _refuse(self, problem: Problem, path: str) -> Answer:
        if problem.reason is not None:
            self.service.metrics.count_refusal(problem.reason)
        headers = [(name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()]
        content = problem_document(problem.status, problem.detail, path)
        return Answer(problem.status, content, PROBLEM_TYPE, headers)


def _unauthorized() -> Problem:
    return Problem(
        401,
        "this service asks for a bearer token: send Authorization: Bearer and the value of its INFERENCE_TOKEN",
        {"WWW-Authenticate": 'Bearer realm="inference"'},
        reason="unauthorized",
    )


def log_access(
    *,
    request_id: bytes,
    trace: Trace | None,
    method: str,
    path: str,
    status: int,
    seconds: float,
    texts: int = 0,
    model: str | None = None,
) -> None:
    """Write one request's line."""
    line: dict[str, Any] = {
        "time": round(time.time(), 3),
        "request_id": request_id.decode(),
        "trace_id": trace.trace_id if trace else None,
        "span_id": trace.span_id if trace else None,
        "method": method,
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "texts": texts,
        "model": model,
    }
    access_log.info(json.dumps(line))


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, Expired):
        return Problem(
            504,
            "the time that X-Request-Timeout-Ms allows passed before the texts were computed",
            reason="deadline",
        )
    if not isinstance(error, ComputationFailed):  # that one is in the log already
        log.error("unexpected failure", exc_info=error)
    return Problem(500, "unexpected failure; the service's log says more")


async def _send_answer(send: Send, answer: Answer, extra: list[tuple[bytes, bytes]]) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
        *extra,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
