"""The typed HTTP client of the inference service; needs neither torch nor ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx

from ml.prediction import Prediction

_RETRIED_LATER: Final = frozenset({408, 425, 429})  # say nothing against the request itself


class InferenceError(Exception):
    """The inference service gave no answer; `permanent` says that the same request will never get one."""

    def __init__(self, message: str, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True)
class PredictResponse:
    """What one model said of each text asked, in order."""

    model: str  # digest
    predictions: tuple[Prediction, ...]
    latency_ms: float  # as seen from here


@dataclass(frozen=True)
class Readiness:
    """Whether the service answers, with which model, and why not with the one it should use."""

    ready: bool
    model: str | None  # digest being served
    wanted: str | None  # digest the champion pointer names
    error: str | None


class InferenceClient:
    """Asks the inference service; keeps its connections, and may be shared between threads."""

    def __init__(self, base_url: str, timeout_seconds: float) -> None:
        """Prepare a client, which connects on the first request; the timeout holds for each wait of a request.

        Raises InferenceError, permanent, when the address is none.
        """
        self._base_url = base_url
        # Shorter than the service keeps idle connections, so that ours is never the one just closed.
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=10)
        transport = httpx.HTTPTransport(limits=limits, retries=1)
        try:
            self._http = httpx.Client(base_url=base_url, timeout=timeout_seconds, transport=transport)
        except httpx.InvalidURL as error:
            raise self._wrong_address(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, texts: Sequence[str]) -> PredictResponse:
        """Ask what each text expresses, all of them answered by the same model.

        Lone surrogates, which UTF-8 cannot carry and the model does not read, are left out.
        Raises InferenceError: permanent when the service refuses the request, not when it is away or has no
        model.
        """
        started = time.perf_counter()
        sendable = [text.encode("utf-8", "ignore").decode() for text in texts]
        response = self._request("POST", "/v1/predict", {"texts": sendable})
        latency_ms = (time.perf_counter() - started) * 1000
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            return _parse_answer(response.json(), len(texts), latency_ms)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._misunderstood(response, error) from error

    def ready(self) -> Readiness:
        """Ask which model is served and which should be; a service without a model is no error."""
        response = self._request("GET", "/readyz", None)
        try:
            document = response.json()
            return Readiness(document["ready"], document["model"], document["wanted"], document["error"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._misunderstood(response, error) from error

    def _request(self, method: str, path: str, document: Any) -> httpx.Response:
        try:
            try:
                return self._http.request(method, path, json=document)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # The service closed a kept connection as it restarted; asking has no effects, so ask again.
                return self._http.request(method, path, json=document)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._wrong_address(error) from error
        except httpx.HTTPError as error:
            message = f"inference service at {self._base_url} did not answer: {error or type(error).__name__}"
            raise InferenceError(message, permanent=False) from error

    def _wrong_address(self, error: Exception) -> InferenceError:
        return InferenceError(
            f"inference service address {self._base_url!r} is wrong: {error}", permanent=True
        )

    def _refusal(self, response: httpx.Response) -> InferenceError:
        status = response.status_code
        permanent = 400 <= status < 500 and status not in _RETRIED_LATER
        return InferenceError(f"inference service answered {status}: {_problem_detail(response)}", permanent)

    def _misunderstood(self, response: httpx.Response, error: Exception) -> InferenceError:
        what = f"{response.status_code} with something that is not its answer ({error!r})"
        return InferenceError(f"inference service at {self._base_url} answered {what}", permanent=False)


def _parse_answer(document: Any, asked: int, latency_ms: float) -> PredictResponse:
    predictions = tuple(
        Prediction(
            label=str(entry["label"]),
            score=float(entry["score"]),
            probabilities={str(label): float(value) for label, value in entry["probabilities"].items()},
        )
        for entry in document["predictions"]
    )
    if len(predictions) != asked:
        raise ValueError(f"{asked} texts asked, {len(predictions)} answered")
    return PredictResponse(str(document["model"]), predictions, latency_ms)


def _problem_detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
