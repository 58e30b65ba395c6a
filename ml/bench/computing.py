"""What the same core does with the same texts without a server: our predictor, the network in torch, and SnowNLP."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml.artifact import Artifact, load_artifact
from ml.bench.reviews import make_batches
from ml.encoding import TextEncoder
from ml.predict import Predictor

Answer = Callable[[Sequence[str]], object]
_WARM_UP_SECONDS = 0.3


@dataclass(frozen=True)
class InProcess:
    """Tokenizing and ONNX Runtime in a loop."""

    single_rps: float
    batch64_texts_per_s: float
    single_cpu_us: float  # a text
    batch64_cpu_us: float  # a text


def measure_in_process(artifact: Path, reviews: Sequence[str], seconds: float) -> InProcess:
    """Time the predictor the service uses, one text at a time and 64 of them."""
    predictor = Predictor(load_artifact(artifact, artifact.name))
    single = _measure_pace(predictor.probabilities, _one_by_one(reviews), seconds)
    batch = _measure_pace(predictor.probabilities, make_batches(reviews), seconds)
    return InProcess(single.texts_per_s, batch.texts_per_s, single.cpu_us, batch.cpu_us)


def compute_probabilities(artifact: Path, reviews: Sequence[str]) -> npt.NDArray[np.float32]:
    """Give what the artifact says of each text (texts, labels), each text on its own."""
    predictor = Predictor(load_artifact(artifact, artifact.name))
    return np.concatenate([predictor.probabilities([review]) for review in reviews])


def measure_torch(artifact: Path, reviews: Sequence[str], seconds: float) -> float:
    """Time the same network in torch, eagerly, one text at a time; texts a second."""
    import torch

    torch.set_num_threads(1)
    answer = make_torch_answer(load_artifact(artifact, artifact.name))
    return _measure_pace(answer, _one_by_one(reviews), seconds).texts_per_s


def make_torch_answer(artifact: Artifact) -> Callable[[Sequence[str]], npt.NDArray[np.float32]]:
    """Make what gives class probabilities (1, labels) for one text, from the artifact's weights."""
    import torch

    from ml.model import build_model

    weights = {name: torch.from_numpy(value.copy()) for name, value in artifact.weights.items()}
    model = build_model(artifact.network, weights, words=artifact.vocabulary.tokens).eval()
    encoder = TextEncoder(artifact.tokenizer, artifact.vocabulary, artifact.max_length)

    def answer(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        (text,) = encoder.encode(texts)
        with torch.inference_mode():
            logits = model(
                torch.from_numpy(text.token_ids.astype(np.int64))[None],
                torch.tensor([len(text.token_ids)]),
                torch.from_numpy(text.grams)[None],
            )
            probabilities: npt.NDArray[np.float32] = logits.softmax(dim=1).numpy()
        return probabilities

    return answer


def measure_snownlp(reviews: Sequence[str], seconds: float) -> float:
    """Time SnowNLP's sentiment, one text at a time as its interface has it; texts a second."""
    from snownlp import SnowNLP

    pace = _measure_pace(lambda texts: SnowNLP(texts[0]).sentiments, _one_by_one(reviews), seconds)
    return pace.texts_per_s


def _one_by_one(reviews: Sequence[str]) -> list[list[str]]:
    return [[review] for review in reviews]


@dataclass(frozen=True)
class _Pace:
    texts_per_s: float
    cpu_us: float  # a text


def _measure_pace(answer: Answer, batches: Sequence[Sequence[str]], seconds: float) -> _Pace:
    began = time.perf_counter()
    for batch in itertools.cycle(batches):
        answer(batch)
        if time.perf_counter() - began >= _WARM_UP_SECONDS:
            break
    texts, began, worked = 0, time.perf_counter(), time.process_time()
    for batch in itertools.cycle(batches):
        answer(batch)
        texts += len(batch)
        if (elapsed := time.perf_counter() - began) >= seconds:
            break
    return _Pace(texts / elapsed, (time.process_time() - worked) * 1e6 / texts)
