"""Which model answers, and the watcher that puts another in its place."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace

from ml.artifact import Artifact, ArtifactError
from ml.device import Device, DeviceUnavailable
from ml.predict import BATCH_TEXTS, Predictor, open_predictor
from ml.serve.fleet import Fleet, WorkerState
from ml.serve.metrics import ServiceMetrics
from ml.serve.settings import ServeSettings
from ml.serve.store import ArtifactStore, PointerError, open_store

log = logging.getLogger(__name__)

_STEPS_OF_LENGTH = 4  # each length that is warmed up is so many times the one before


@dataclass(frozen=True)
class ServingState:
    """What is served and what should be; replaced as a whole, so a reader never sees half of a change."""

    predictor: Predictor | None = None
    wanted: str | None = None
    error: str | None = "no model has been loaded yet"

    @property
    def model(self) -> str | None:
        """The digest being served."""
        return self.predictor.digest if self.predictor else None

    @property
    def device(self) -> Device | None:
        """Where it is computed."""
        return self.predictor.device if self.predictor else None


class ChampionWatcher:
    """Follows the champion pointer in a thread of its own and swaps in what it names.

    A new model is loaded, verified and asked beside the running one; then one reference changes. A request
    that took the old predictor ends with the old one. What fails is reported and tried again when the pointer
    is written anew or after `retry_seconds`. A service that has nothing to serve, since the champion's files were
    damaged while it was away, serves the champion before it and says why.
    """

    def __init__(self, settings: ServeSettings, metrics: ServiceMetrics, fleet: Fleet) -> None:
        self._settings = settings
        self._metrics = metrics
        self._fleet = fleet
        self._store: ArtifactStore | None = None
        self._state = ServingState()
        self._seen: Hashable = None
        self._retry_at = 0.0  # monotonic seconds; 0 for at once, infinity while nothing is amiss
        self._wanted_since = 0.0  # monotonic seconds
        self._stopping = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="champion-watcher", daemon=True)

    @property
    def state(self) -> ServingState:
        """What is served now."""
        return self._state

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread has ended, or after 5 seconds in the midst of a load."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if self._store is not None:
            self._store.close()

    def wait_for_first_look(self, seconds: float) -> bool:
        """Wait until the pointer was followed once, well or not; false when that takes longer."""
        return self._looked.wait(seconds)

    def look_once(self) -> None:
        """Act on the pointer if it changed since the last look, or if a failure is due to be tried again."""
        try:
            self._store = store = self._store or open_store(self._settings)
            mark = store.mark()
            if mark == self._seen and time.monotonic() < self._retry_at:
                return
            # The mark is taken before the pointer is read: a pointer written between the two is looked at again.
            self._seen = mark
            self._follow_pointer(store)
            self._retry_at = float("inf")
        except (ArtifactError, PointerError, DeviceUnavailable) as error:
            self._fail(str(error))
        except Exception as error:  # a watcher that dies would freeze the model for good
            log.exception("unexpected failure while following the champion pointer")
            self._fail(f"unexpected {type(error).__name__}: {error}")

    def _follow_pointer(self, store: ArtifactStore) -> None:
        pointer = store.read_pointer()
        if pointer.digest == self._state.model:
            self._change(replace(self._state, wanted=pointer.digest, error=None))
            return
        if pointer.digest != self._state.wanted:
            # What is said of another model says nothing of this one, and whoever waits for it would believe it.
            loading = None if self._state.predictor else f"model {pointer.digest} is being loaded"
            self._change(replace(self._state, wanted=pointer.digest, error=loading))
        try:
            self._serve(store.load(pointer.digest), wanted=pointer.digest)
        except ArtifactError:
            if pointer.previous is not None and self._state.predictor is None:
                with contextlib.suppress(ArtifactError):  # the wanted one's error is the one to report
                    self._serve(store.load(pointer.previous), wanted=pointer.digest)
            raise

    def _serve(self, artifact: Artifact, wanted: str) -> None:
        predictor = self._prepare(artifact)
        self._change(ServingState(predictor, wanted, None))
        self._metrics.record_swap()
        log.info("serving model %s on %s", artifact.digest, predictor.device)

    def _prepare(self, artifact: Artifact) -> Predictor:
        predictor = open_predictor(artifact, self._settings.threads, self._settings.device)
        warm_up(predictor, artifact.max_length)
        return predictor

    def _change(self, state: ServingState) -> None:
        """Serve another state, and tell the other processes."""
        if state.wanted != self._state.wanted:
            self._wanted_since = time.monotonic()
        self._state = state
        self._fleet.publish(
            WorkerState(
                state.model,
                state.wanted,
                state.error,
                self._wanted_since,
                state.device,
                reached=self._looked.is_set(),
            )
        )

    def _fail(self, reason: str) -> None:
        if reason != self._state.error:
            log.error("still serving %s: %s", self._state.model or "nothing", reason)
        self._change(replace(self._state, error=reason))
        self._metrics.record_failure()
        self._retry_at = time.monotonic() + self._settings.retry_seconds

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look_once()
                if not self._looked.is_set():
                    self._looked.set()
                    self._change(self._state)  # from now on requests come, whether there is a model or not
            except OSError:  # other processes cannot be told: the folder is gone, or the disk is full
                log.exception("what is served cannot be published")
                self._looked.set()
            self._stopping.wait(self._settings.poll_seconds)


def warm_up(predictor: Predictor, max_length: int) -> None:
    """Ask a model for texts of every length it knows, alone and in full batches.

    The runtime plans and allocates for a shape when it first sees it; no client shall wait for that.
    """
    length = 1  # in tokens: the full stop is one, and repeats are not joined
    while length < max_length:
        predictor.probabilities(["。" * length])
        length *= _STEPS_OF_LENGTH
    predictor.probabilities(["。" * max_length])
    predictor.probabilities(["。" * max_length] * BATCH_TEXTS)
