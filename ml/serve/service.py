"""What every route shares: the champion, the threads that compute, the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ml.predict import Predictor
from ml.prediction import Prediction
from ml.serve.champion import ChampionWatcher, ServingState
from ml.serve.metrics import ServiceMetrics
from ml.serve.problems import Problem
from ml.serve.settings import ServeSettings


class InferenceService:
    """One running service, behind every route."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = ServiceMetrics()
        self._watcher = ChampionWatcher(settings, self.metrics)
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="predict")

    @property
    def state(self) -> ServingState:
        """What is served now."""
        return self._watcher.state

    def start(self) -> None:
        """Begin to follow the champion pointer."""
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching and let the computations under way end."""
        self._watcher.stop()
        self._threads.shutdown(wait=True)

    def current_predictor(self) -> Predictor:
        """Take the predictor that answers this request from start to end; raises Problem 503 without one."""
        state = self.state
        if state.predictor is None:
            detail = f"no model is being served (wanted: {state.wanted or 'none'}): {state.error}"
            raise Problem(503, detail, {"Retry-After": "1"})
        return state.predictor

    async def predict(self, predictor: Predictor, texts: Sequence[str]) -> list[Prediction]:
        """Compute in a thread, so that the event loop keeps answering others."""
        predictions = await asyncio.get_running_loop().run_in_executor(
            self._threads, predictor.predict, texts
        )
        self.metrics.count_predictions(predictions)
        return predictions
