"""The client that waits in the thread that calls it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from ml.client.answers import PredictResponse, Readiness
from ml.client.calls import Answer, Call, Caller, CallPolicy, NoReply, Reply, Send
from ml.client.questions import ask_predictions, ask_readiness, service_name, wrong_address
from ml.client.transport import BoundedBody, DeadlineTransport, build_request, failed_exchange, plain_headers


@dataclass(frozen=True)
class _Own:
    """What belongs to one process: locks and connections of another one must not be used."""

    http: httpx.Client
    transport: DeadlineTransport
    caller: Caller


class InferenceClient:
    """Asks the inference service; keeps its connections, and may be shared between threads and across forks."""

    def __init__(
        self, base_url: str, timeout_seconds: float, *, token: str = "", policy: CallPolicy | None = None
    ) -> None:
        """Prepare a client, which connects on the first request.

        `timeout_seconds` is what a whole call may take, retries and pauses included. Raises InferenceError, permanent,
        when the address is none.
        """
        self._base_url = base_url
        self._timeout_seconds = timeout_seconds
        self._token = token
        self._policy = policy or CallPolicy()
        self._by_process = {os.getpid(): self._make_own()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._own().http.close()

    def predict(
        self,
        texts: Sequence[str],
        *,
        explain: bool = False,
        timeout_seconds: float | None = None,
        request_id: str = "",
        traceparent: str = "",
    ) -> PredictResponse:
        """Ask what each text expresses, all of them answered by the same model; with `explain`, by which words.

        Lone surrogates, which UTF-8 cannot carry and the model does not read, are left out. Raises InferenceError:
        permanent when the service refuses the request, not when it is away, too busy or has no model; CircuitOpen,
        at once, after it failed several times in a row.
        """
        caller = self._own().caller
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return self._drive(ask_predictions(caller, texts, explain, timeout, request_id, traceparent))

    def ready(self, *, timeout_seconds: float | None = None) -> Readiness:
        """Ask which model is served and which should be; a service without a model is no error."""
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return self._drive(ask_readiness(self._own().caller, timeout))

    def _drive(self, call: Call[Answer]) -> Answer:
        outcome: Reply | NoReply | None = None
        with contextlib.closing(call):
            while True:
                try:
                    step = call.send(outcome)
                except StopIteration as end:
                    answer: Answer = end.value
                    return answer
                if isinstance(step, Send):
                    outcome = self._exchange(step)
                else:
                    time.sleep(step.seconds)
                    outcome = None

    def _exchange(self, send: Send) -> Reply | NoReply:
        http = self._own().http
        started = time.perf_counter()
        try:
            request = build_request(http, send.request, send.timeout_seconds)
            with contextlib.closing(http.send(request, stream=True)) as response:
                body = BoundedBody(response, self._policy.max_response_bytes)
                if body.refusal is None:
                    all(body.add(part) for part in response.iter_raw())
                return body.reply(response, time.perf_counter() - started)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return failed_exchange(error)

    def _own(self) -> _Own:
        own = self._by_process.get(os.getpid())
        return own if own is not None else self._begin_after_fork()

    def _begin_after_fork(self) -> _Own:
        """Start anew in a process that was forked: two processes on one connection would read each other's answers."""
        fresh = self._make_own()
        own = self._by_process.setdefault(os.getpid(), fresh)  # atomic: of several threads one comes first
        if own is fresh:
            for pid in [pid for pid in self._by_process if pid != os.getpid()]:
                self._by_process.pop(pid).transport.abandon()
        return own

    def _make_own(self) -> _Own:
        transport = DeadlineTransport()
        try:
            http = httpx.Client(
                base_url=self._base_url, transport=transport, headers=plain_headers(self._token)
            )
        except httpx.InvalidURL as error:
            raise wrong_address(self._base_url, error) from error
        return _Own(http, transport, Caller(service_name(self._base_url), self._policy))
