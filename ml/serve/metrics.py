"""What the service counts, in a registry of its own."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ml.prediction import Prediction

__all__ = ["CONTENT_TYPE", "ServiceMetrics"]

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class ServiceMetrics:
    """Counters of one service; a registry of its own lets several live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._latency = Histogram(
            "inference_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ["route", "status"],
            buckets=_LATENCY_BUCKETS,
            registry=self._registry,
        )
        self._texts = Counter(
            "inference_texts", "Texts answered, by label.", ["label"], registry=self._registry
        )
        self._model = Gauge(
            "inference_model_info", "1 for the model served.", ["digest"], registry=self._registry
        )
        self._ready = Gauge("inference_ready", "1 while a model is served.", registry=self._registry)
        self._swaps = Counter("inference_swaps", "Models put into service.", registry=self._registry)
        self._failures = Counter(
            "inference_swap_failures",
            "Attempts to serve what the pointer names that failed.",
            registry=self._registry,
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Record one answered request."""
        self._latency.labels(route, str(status)).observe(seconds)

    def count_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Record what was answered."""
        for prediction in predictions:
            self._texts.labels(prediction.label).inc()

    def record_swap(self, digest: str) -> None:
        """Record that another model went into service."""
        self._model.clear()
        self._model.labels(digest).set(1)
        self._ready.set(1)
        self._swaps.inc()

    def record_failure(self) -> None:
        """Record that the wanted model could not be put into service."""
        self._failures.inc()

    def render(self) -> bytes:
        """Give all figures in Prometheus' text format."""
        return generate_latest(self._registry)
