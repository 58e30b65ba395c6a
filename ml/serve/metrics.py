"""What the service counts, in a registry of its own."""

from __future__ import annotations

import bisect
import functools
import os
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ml.encoding import EncodedTexts
from ml.serve.fleet import COUNTERS_FOLDER, Fleet

__all__ = ["CONTENT_TYPE", "Refusal", "ServiceMetrics"]

Refusal = Literal[
    "overload",
    "deadline",
    "body-size",
    "limits",
    "no-model",
    "unauthorized",
    "connections",
    "slow",
    "abandoned",
]

_REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_TEXT_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_TOKEN_BUCKETS = (16, 64, 256, 1024, 4096, 16384)
_LENGTH_BUCKETS = (0, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240)


class ServiceMetrics:
    """Counters of one service; a registry of its own lets several live in one process."""

    def __init__(self, fleet: Fleet) -> None:
        self._registry = registry = CollectorRegistry()
        # `labels` takes longer than counting does; of each of these there are few, whoever asks for what.
        requests = Histogram(
            "inference_request_seconds",
            "Time from a request's headers to its answer's last byte.",
            ["route", "status"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._requests = functools.cache(requests.labels)
        stages = Histogram(
            "inference_stage_seconds",
            "Time in the queue (a request), in the tokeniser and in the model (a batch).",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self._queue, self._tokenise, self._model = map(stages.labels, ("queue", "tokenise", "model"))
        self._batch_texts = Histogram(
            "inference_batch_texts", "Texts a batch.", buckets=_TEXT_BUCKETS, registry=registry
        )
        self._batch_tokens = Histogram(
            "inference_batch_tokens", "Tokens a batch.", buckets=_TOKEN_BUCKETS, registry=registry
        )
        self._depth = Gauge(
            "inference_queue_depth",
            "Requests that wait or are computed.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        refused = Counter(
            "inference_refusals", "Requests that got no answer, by reason.", ["reason"], registry=registry
        )
        self._refused = functools.cache(refused.labels)
        self._overloads = 0  # refused and not recorded yet
        texts = Counter("inference_texts", "Texts answered, by label.", ["label"], registry=registry)
        self._texts = functools.cache(texts.labels)
        self._lengths = _BulkHistogram(
            "inference_text_characters", "Length of texts.", buckets=_LENGTH_BUCKETS, registry=registry
        )
        self._tokens = Counter("inference_tokens", "Tokens the model read.", registry=registry)
        self._unknown = Counter(
            "inference_unknown_tokens", "Tokens that the model does not know.", registry=registry
        )
        self._swaps = Counter("inference_swaps", "Models put into service.", registry=registry)
        self._failures = Counter(
            "inference_swap_failures",
            "Attempts to serve what the pointer names that failed.",
            registry=registry,
        )
        self._fleet = _FleetCollector(fleet)
        registry.register(self._fleet)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Record one answered request."""
        self._requests(route, str(status)).observe(seconds)

    def count_refusal(self, reason: Refusal) -> None:
        """Record a request that got no answer."""
        self._refused(reason).inc()

    def count_overload(self) -> None:
        """Count a request that is refused because there is too much to do.

        Under overload most are, and recording each would take a tenth of what refusing takes: `record_overloads` does.
        """
        self._overloads += 1

    def record_overloads(self) -> None:
        """Record what `count_overload` has counted; figures that are rendered here hold it anyway."""
        if self._overloads:
            self._refused("overload").inc(self._overloads)
            self._overloads = 0

    def count_answers(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Record which texts got which labels: drift shows in both."""
        for label, times in Tally(labels).items():
            self._texts(label).inc(times)
        self._lengths.observe_all(list(map(len, texts)))

    def observe_queue(self, seconds: float) -> None:
        """Record how long a request waited before its first text was computed."""
        self._queue.observe(seconds)

    def observe_batch(self, encoded: EncodedTexts, *, tokenise_seconds: float, model_seconds: float) -> None:
        """Record what a batch held and what it took."""
        tokens = len(encoded.token_ids)
        self._tokenise.observe(tokenise_seconds)
        self._model.observe(model_seconds)
        self._batch_texts.observe(len(encoded))
        self._batch_tokens.observe(tokens)
        self._tokens.inc(tokens)
        self._unknown.inc(encoded.unknown_tokens())

    def set_queue_depth(self, requests: int) -> None:
        """Say how many requests wait or are computed."""
        self._depth.set(requests)

    def record_swap(self) -> None:
        """Record that another model went into service."""
        self._swaps.inc()

    def record_failure(self) -> None:
        """Record that the wanted model could not be put into service."""
        self._failures.inc()

    def render(self) -> bytes:
        """Give all figures in Prometheus' text format, those of the whole service when it has several processes."""
        self.record_overloads()
        if COUNTERS_FOLDER not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        shared.register(self._fleet)
        return generate_latest(shared)


class _BulkHistogram(Histogram):
    """One that takes many values at once: one by one they would cost a text of a large request a fiftieth of its time.

    The library has no such thing, so this reaches for the counters inside its own.
    """

    def observe_all(self, values: Sequence[float]) -> None:
        """Record each value."""
        self._sum.inc(sum(values))
        for bucket, times in Tally(bisect.bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(times)


class _FleetCollector(Collector):
    """The model served, asked when figures are rendered: a gauge kept by each process would outlive a swap."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        state = self._fleet.state()
        model = GaugeMetricFamily(
            "inference_model_info",
            "1 for the model served, and the device it is computed on.",
            labels=["digest", "device"],
        )
        if state.model is not None:
            model.add_metric([state.model, state.device or ""], 1)
        yield model
        yield GaugeMetricFamily("inference_ready", "1 while a model is served.", value=float(state.ready))
        yield GaugeMetricFamily(
            "inference_wanted_served",
            "1 while the model served is the one that the pointer names.",
            value=float(state.ready and state.model == state.wanted),
        )
