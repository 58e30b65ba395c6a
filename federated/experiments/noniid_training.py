"""One training of the non-IID experiment: its samples, its sites, and how good it is as it goes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from federated.averaging import InconsistentUpdates
from federated.experiments.corpus import Corpus, Review, read_corpus
from federated.experiments.stages import settings_digest
from federated.partition import partition_by_dirichlet, partition_iid
from federated.simulation import SimulatedRound, final_parameters, simulate_run
from federated.strategies import network_tensors
from ml.data import Dataset, Example, encode_dataset
from ml.model import build_model, initial_parameters
from ml.model_config import ModelConfig
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.train import evaluate
from ml.training_config import TrainingConfig
from ml.vocabulary import Vocabulary, build_vocabulary, count_tokens

NETWORK: Final = ModelConfig(vocabulary_size=0, embedding_dim=48, hidden_dim=32, subword_buckets=2**13)
VOCABULARY: Final = 8_000  # words at most
MAX_LENGTH: Final = 64  # tokens of a text
SITES: Final = 10
LOCAL_STEPS: Final = 5  # of the strategies that train at the sites; so often all are measured, too
STEADINESS_SAMPLES: Final = 1_000  # on which the parameters of the moment are measured, not their average


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    split: str
    training: TrainingConfig
    measured_on: str = "test"

    @property
    def batches(self) -> int:
        """How much work it is."""
        return self.training.rounds * self.training.local_steps


@dataclass(frozen=True)
class Ground:
    """What all trainings of an experiment share."""

    reviews: list[Review]
    vocabulary: Vocabulary
    measured: Mapping[str, tuple[Dataset, Dataset]]  # all samples, and those for steadiness
    identity: Mapping[str, Any]  # what results depend on beside a run's own settings

    def settings(self, run: Run) -> dict[str, Any]:
        """Give all that a run's result depends on, but for the code."""
        return {**self.identity, **asdict(run)}

    def network(self) -> ModelConfig:
        """Give the network, which knows this vocabulary."""
        return replace(NETWORK, vocabulary_size=len(self.vocabulary))

    def path(self, run: Run, folder: Path) -> Path:
        """Say where a run's result lies."""
        return folder / f"{settings_digest(self.settings(run))}.json"


def prepare(path: Path, train_samples: int, measured_samples: int) -> Ground:
    """Read the corpus and draw from it. Raises NoCorpus."""
    corpus = read_corpus(path)
    reviews = draw_by_category(corpus, train_samples)
    tokenizer = make_tokenizer(TokenizerSettings())
    counts = count_tokens((review.example.text for review in reviews), tokenizer)
    vocabulary = build_vocabulary(counts, max_size=VOCABULARY, min_count=2)
    measured = {}
    for name, part in (("test", corpus.test), ("validation", corpus.validation)):
        examples = [review.example for review in part[:measured_samples]]
        few = examples[:STEADINESS_SAMPLES]
        measured[name] = (encode(examples, vocabulary), encode(few, vocabulary))
    identity = {
        "corpus": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "train_samples": len(reviews),
        "measured_samples": len(measured["test"][0]),
        "vocabulary": VOCABULARY,
        "network": NETWORK.to_json(),
        "sites": SITES,
    }
    return Ground(reviews, vocabulary, measured, identity)


def encode(examples: Sequence[Example], vocabulary: Vocabulary) -> Dataset:
    """Encode texts as all trainings do."""
    return encode_dataset(examples, make_tokenizer(TokenizerSettings()), vocabulary, MAX_LENGTH)


def draw_by_category(corpus: Corpus, samples: int) -> list[Review]:
    """Draw training samples, of each category its share; all when there are not as many."""
    share = min(1.0, samples / max(1, len(corpus.train)))
    order = np.random.default_rng(0).permutation(len(corpus.train))
    members: dict[str, list[Review]] = {}
    for index in order:
        members.setdefault(corpus.train[index].category, []).append(corpus.train[index])
    return [
        review
        for _, group in sorted(members.items())
        for review in group[: max(1, round(share * len(group)))]
    ]


def cut_shards(reviews: Sequence[Review], split: str, seed: int) -> dict[str, list[Example]]:
    """Spread samples over sites in the split's way; those of "category" are the corpus's own."""
    labels = [review.example.label for review in reviews]
    if split == "pooled":
        homes = ["everything"] * len(reviews)
    elif split == "category":
        homes = [review.category for review in reviews]
    elif split == "iid":
        homes = [f"site-{site}" for site in partition_iid(len(reviews), sites=SITES, seed=seed)]
    else:
        alpha = float(split.removeprefix("dirichlet-"))
        spread = partition_by_dirichlet(labels, sites=SITES, alpha=alpha, seed=seed)
        homes = [f"site-{site}" for site in spread]
    shards: dict[str, list[Example]] = {}
    for home, review in zip(homes, reviews, strict=True):
        shards.setdefault(home, []).append(review.example)
    return shards


@dataclass
class Curve:
    """Measures a training as it goes; one entry a point in each column."""

    run: Run
    ground: Ground
    counter: Any  # shared by all processes: batches done
    columns: dict[str, list[float]] = field(default_factory=dict)
    samples: int = 0
    bytes_up: int = 0
    bytes_down: int = 0

    def __post_init__(self) -> None:
        network, words = self.ground.network(), self.ground.vocabulary.tokens
        self._counted = 0
        self._model = build_model(network, initial_parameters(network, seed=0), words=words)

    def follow(self, done: SimulatedRound) -> None:
        """Take note of a round."""
        training = self.run.training
        self.samples += done.batch.samples
        self.bytes_up += done.bytes_up
        self.bytes_down += done.bytes_down
        self._count(training.local_steps)
        last = done.number == training.rounds
        if last or (self.run.measured_on == "test" and done.number * training.local_steps % LOCAL_STEPS == 0):
            self._measure(done)

    def give_up(self) -> None:
        """Count what will not be done as done."""
        self._count(self.run.batches - self._counted)

    def _count(self, batches: int) -> None:
        self._counted += batches
        with self.counter.get_lock():
            self.counter.value += batches

    def _measure(self, done: SimulatedRound) -> None:
        measured, few = self.ground.measured[self.run.measured_on]
        self._model.load_state_dict(final_parameters(done.optimizer))
        result = evaluate(self._model, measured)
        self._model.load_state_dict(network_tensors(done.optimizer.parameters))
        of_the_moment = evaluate(self._model, few)
        point = {
            "round": done.number,
            "samples": self.samples,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "accuracy": round(result.accuracy, 4),
            "macro_f1": round(result.macro_f1, 4),
            "raw_accuracy": round(of_the_moment.accuracy, 4),
        }
        for name, value in point.items():
            self.columns.setdefault(name, []).append(value)


def train(run: Run, ground: Ground, counter: Any) -> dict[str, Any]:
    """Train and measure; a training whose numbers become too large or no numbers ends there, and says so.

    Central training is that of one site which holds everything: the same arithmetic, and nothing that would be sent.
    """
    started = time.monotonic()
    curve = Curve(run, ground, counter)
    shards = {
        site: encode(examples, ground.vocabulary)
        for site, examples in cut_shards(ground.reviews, run.split, run.training.seed).items()
    }
    failure = ""
    try:
        simulate_run(shards, ground.network(), run.training, ground.vocabulary.tokens, curve.follow)
    except (InconsistentUpdates, ValueError) as error:
        failure = str(error)
        curve.give_up()
    return {
        "settings": ground.settings(run),
        "failure": failure,
        "seconds": round(time.monotonic() - started, 1),
        "columns": curve.columns,
    }
