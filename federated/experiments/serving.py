"""What serving a model costs: the artifact's size, and the time that one text takes on one core."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from federated.experiments.progress import Advance
from federated.experiments.training import Ground
from ml.artifact import load_artifact
from ml.export import export_artifact, model_weights
from ml.model import SentimentLSTM
from ml.predict import Predictor

WARM_UP_CALLS: Final = 100


def measure_serving(
    model: SentimentLSTM, ground: Ground, folder: Path, calls: int, advance: Advance
) -> dict[str, Any]:
    """Export a model into `folder` and time single texts of the test set, from text to answer."""
    texts = [review.example.text for review in ground.corpus.test]
    written = export_artifact(
        folder,
        weights=model_weights(model),
        config=ground.network,
        tokenizer=ground.tokenizer,
        vocabulary=ground.vocabulary,
        max_length=ground.config.max_length,
        validation=[review.example for review in ground.corpus.validation],
    )
    artifact = load_artifact(written.path, written.digest)
    with one_core():
        milliseconds = time_calls(Predictor(artifact, threads=1), texts, calls, advance)
    return {
        "artifact": written.digest,
        "size_bytes": sum(file.stat().st_size for file in written.path.iterdir()),
        "onnx_bytes": len(artifact.onnx),
        "calls": calls,
        "median_ms": float(np.median(milliseconds)),
        "p95_ms": float(np.percentile(milliseconds, 95)),
        "characters_median": float(np.median([len(text) for text in texts[:calls]])),
        "parity_max_difference": artifact.parity.max_abs_difference,
        "precision": artifact.quantization.served,
    }


def time_calls(predictor: Predictor, texts: Sequence[str], calls: int, advance: Advance) -> list[float]:
    """Give the milliseconds of each call, a text a call; texts come again where there are fewer."""
    again = itertools.cycle(texts)
    for text in itertools.islice(again, WARM_UP_CALLS):
        predictor.predict([text])
    milliseconds = []
    for number, text in enumerate(itertools.islice(itertools.cycle(texts), calls), start=1):
        began = time.perf_counter()
        predictor.predict([text])
        milliseconds.append((time.perf_counter() - began) * 1000)
        if number % 100 == 0 or number == calls:
            advance(number)
    return milliseconds


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread on one core while the block runs, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
