"""What every route shares: the champion, the batcher, the figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ml.predict import Predictor
from ml.serve.admission import Admission
from ml.serve.batcher import Batcher, Probabilities
from ml.serve.champion import ChampionWatcher, ServingState
from ml.serve.exchange import Exchange
from ml.serve.fleet import FLEET_FOLDER, Fleet, WorkerState
from ml.serve.metrics import ServiceMetrics
from ml.serve.payload_log import PayloadLog
from ml.serve.problems import Problem
from ml.serve.settings import ServeSettings


class InferenceService:
    """One running service, behind every route."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        folder = os.environ.get(FLEET_FOLDER)
        self._fleet = Fleet(Path(folder) if folder else None)
        self.metrics = ServiceMetrics(self._fleet)
        self.admission = Admission(
            max_wait_seconds=settings.max_wait_seconds,
            always_admitted=settings.always_admitted,
            max_waiting_bytes=settings.max_waiting_bytes,
        )
        self._batcher = Batcher(self.admission, self.metrics)
        self._watcher = ChampionWatcher(settings, self.metrics, self._fleet)
        self._payloads = PayloadLog(settings) if settings.payload_log else None

    @property
    def state(self) -> ServingState:
        """What this process serves now."""
        return self._watcher.state

    @property
    def fleet_state(self) -> WorkerState:
        """What the whole service serves now, which may be several processes."""
        return self._fleet.state()

    def start(self) -> None:
        """Begin to follow the champion pointer."""
        self._watcher.start()

    def wait_for_first_look(self, seconds: float) -> bool:
        """Wait until the pointer was followed once, well or not; false when that takes longer."""
        return self._watcher.wait_for_first_look(seconds)

    def stop(self) -> None:
        """Stop watching."""
        self._watcher.stop()
        if self._payloads:
            self._payloads.close()

    def current_predictor(self) -> Predictor:
        """Take the predictor that answers a request from start to end; raises Problem 503 without one."""
        state = self.state
        if state.predictor is None:
            detail = f"no model is being served (wanted: {state.wanted or 'none'}): {state.error}"
            raise Problem(503, detail, {"Retry-After": "1"}, reason="no-model")
        return state.predictor

    async def probabilities(
        self, exchange: Exchange, predictor: Predictor, texts: Sequence[str]
    ) -> Probabilities:
        """Give class probabilities (n, labels) of n texts, computed together with what others ask.

        Raises what Batcher.compute raises; the gateway turns that into answers. May be called several times for one
        request.
        """
        exchange.texts += len(texts)
        exchange.model = predictor.digest
        return await self._batcher.compute(
            predictor,
            texts,
            units=exchange.units,
            deadline=exchange.deadline,
            is_wanted=exchange.is_wanted,
        )

    def record_answers(self, exchange: Exchange, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Count what was answered, and keep a sample of it where that is wanted."""
        self.metrics.count_answers(texts, labels)
        if self._payloads:
            self._payloads.sample(exchange, texts, labels)
