"""Steady requests to the inference service, to see whether a swap of models is noticed by anyone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

CLIENTS = 8
PAUSE_SECONDS = 0.005  # between a client's requests: traffic, not a load test
REQUEST_TIMEOUT_SECONDS = 10


@dataclass
class Traffic:
    """Clients that ask again and again, each remembering which models answered, in order."""

    url: str
    texts: Sequence[str]
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    models: dict[int, list[str]] = field(default_factory=dict)  # client → digests in the order they were seen
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT_SECONDS + 1)

    def swapped(self, old: str, new: str) -> bool:
        """Every client saw the old model, then the new one, and never the old one again."""
        return len(self.models) == CLIENTS and all(seen == [old, new] for seen in self.models.values())

    def _ask(self, client_number: int) -> None:
        seen = self.models.setdefault(client_number, [])
        with httpx.Client(base_url=self.url, timeout=REQUEST_TIMEOUT_SECONDS, trust_env=False) as http:
            while not self._stop.is_set():
                model, failure = ask_once(http, list(self.texts))
                with self._lock:
                    self.requests += 1
                    if failure:
                        self.failures.append(failure)
                    elif model and (not seen or seen[-1] != model):
                        seen.append(model)
                time.sleep(PAUSE_SECONDS)


def ask_once(http: httpx.Client, texts: list[str]) -> tuple[str, str]:
    """The digest that answered, or what went wrong."""
    try:
        response = http.post("/v1/predict", json={"texts": texts})
    except httpx.HTTPError as error:
        return "", f"{type(error).__name__}: {error}"
    if not response.is_success:
        return "", f"{response.status_code}: {response.text[:200]}"
    try:
        answer = response.json()
        model, answered = str(answer["model"]), len(answer["predictions"])
    except (ValueError, KeyError, TypeError) as error:
        return "", f"not an answer ({error!r}): {response.text[:200]}"
    if answered != len(texts):
        return "", f"{answered} predictions for {len(texts)} texts"
    return model, ""
