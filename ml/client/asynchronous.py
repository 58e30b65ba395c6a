"""The client that waits on an event loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import anyio
import httpx

from ml.client.answers import PredictResponse, Readiness
from ml.client.calls import Answer, Call, Caller, CallPolicy, NoReply, Reply, Send
from ml.client.questions import ask_predictions, ask_readiness, service_name, wrong_address
from ml.client.transport import LIMITS, BoundedBody, build_request, failed_exchange, plain_headers


class AsyncInferenceClient:
    """Asks the inference service from coroutines; belongs to the event loop it is first used on, as its sockets do."""

    def __init__(
        self, base_url: str, timeout_seconds: float, *, token: str = "", policy: CallPolicy | None = None
    ) -> None:
        """Prepare a client, which connects on the first request.

        `timeout_seconds` is what a whole call may take, retries and pauses included. Raises InferenceError, permanent,
        when the address is none.
        """
        self._timeout_seconds = timeout_seconds
        self._policy = policy or CallPolicy()
        self._caller = Caller(service_name(base_url), self._policy)
        transport = httpx.AsyncHTTPTransport(limits=LIMITS)
        try:
            self._http = httpx.AsyncClient(
                base_url=base_url, transport=transport, headers=plain_headers(token)
            )
        except httpx.InvalidURL as error:
            raise wrong_address(base_url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(
        self,
        texts: Sequence[str],
        *,
        explain: bool = False,
        timeout_seconds: float | None = None,
        request_id: str = "",
        traceparent: str = "",
    ) -> PredictResponse:
        """Ask what each text expresses; as `InferenceClient.predict`."""
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return await self._drive(
            ask_predictions(self._caller, texts, explain, timeout, request_id, traceparent)
        )

    async def ready(self, *, timeout_seconds: float | None = None) -> Readiness:
        """Ask which model is served and which should be; a service without a model is no error."""
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return await self._drive(ask_readiness(self._caller, timeout))

    async def _drive(self, call: Call[Answer]) -> Answer:
        outcome: Reply | NoReply | None = None
        try:
            while True:
                try:
                    step = call.send(outcome)
                except StopIteration as end:
                    answer: Answer = end.value
                    return answer
                if isinstance(step, Send):
                    outcome = await self._exchange(step)
                else:
                    await anyio.sleep(step.seconds)
                    outcome = None
        finally:
            call.close()  # cancelled in between, it gives back what it has taken

    async def _exchange(self, send: Send) -> Reply | NoReply:
        started = time.perf_counter()
        try:
            with anyio.fail_after(send.timeout_seconds):
                request = build_request(self._http, send.request, send.timeout_seconds)
                response = await self._http.send(request, stream=True)
                try:
                    return await self._read(response, started)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return failed_exchange(error)

    async def _read(self, response: httpx.Response, started: float) -> Reply | NoReply:
        body = BoundedBody(response, self._policy.max_response_bytes)
        if body.refusal is None:
            async for part in response.aiter_raw():
                if not body.add(part):
                    break
        return body.reply(response, time.perf_counter() - started)
