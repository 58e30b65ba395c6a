"""The experiments' trainings: centrally, federatedly in one process, and federatedly with real processes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.numpy import load_file, save

from federated.experiments.corpus import Corpus, Review, by_category
from federated.experiments.progress import Advance
from federated.launch.local import LocalLauncher
from federated.protocol import RunSpec, RunStatus, SiteSpec
from federated.simulation import SimulatedRound, simulate_run
from federated.store import FolderStore, write_whole
from federated.strategies import network_tensors
from ml.artifact import Weights, load_artifact
from ml.data import Dataset, Example, encode_dataset
from ml.export import model_weights
from ml.model import SentimentLSTM, build_model
from ml.model_config import ModelConfig
from ml.optimizer import ServerOptimizer
from ml.tokenizer import Tokenizer, TokenizerSettings, make_tokenizer
from ml.train import RoundProgress, evaluate, train_centrally
from ml.training_config import TrainingConfig
from ml.vocabulary import Vocabulary, build_vocabulary, count_tokens

VALIDATIONS: Final = 20  # of a training in this process, from its first round to its last
POLL_SECONDS: Final = 0.5
RUN_SECONDS: Final = 24 * 3600
ROUND_SECONDS: Final = 600


class TrainingFailed(Exception):
    """The processes of a run gave no model; the text says why."""


@dataclass(frozen=True)
class Ground:
    """What all trainings start from: encoded samples, vocabulary and settings."""

    corpus: Corpus
    shards: dict[str, Dataset]  # by site, that is by category
    validation: dict[str, Dataset]
    test: dict[str, Dataset]
    tokenizer: TokenizerSettings
    vocabulary: Vocabulary
    vocabulary_limits: dict[str, int]
    network: ModelConfig  # its vocabulary's size known
    config: TrainingConfig  # of the first seed


@dataclass(frozen=True)
class Trained:
    """What a training ends with."""

    weights: Weights
    curve: list[tuple[int, float]]  # steps made, accuracy on the validation samples with the parameters then
    seconds: float  # of the rounds, validation among them
    bytes_up: int = 0
    bytes_down: int = 0


def prepare_ground(
    corpus: Corpus, network: ModelConfig, config: TrainingConfig, vocabulary_limits: Mapping[str, int]
) -> Ground:
    """Build the vocabulary of the training samples, as an aggregator does of its sites' counts, and encode."""
    settings = TokenizerSettings()
    tokenizer = make_tokenizer(settings)
    counts = count_tokens((review.example.text for review in corpus.train), tokenizer)
    vocabulary = build_vocabulary(
        counts, max_size=vocabulary_limits["max_size"], min_count=vocabulary_limits["min_count"]
    )

    def encode(reviews: list[Review]) -> dict[str, Dataset]:
        return encode_by_category(reviews, tokenizer, vocabulary, config.max_length)

    return Ground(
        corpus=corpus,
        shards=encode(corpus.train),
        validation=encode(corpus.validation),
        test=encode(corpus.test),
        tokenizer=settings,
        vocabulary=vocabulary,
        vocabulary_limits=dict(vocabulary_limits),
        network=replace(network, vocabulary_size=len(vocabulary)),
        config=config,
    )


def encode_by_category(
    reviews: list[Review], tokenizer: Tokenizer, vocabulary: Vocabulary, max_length: int
) -> dict[str, Dataset]:
    """Encode reviews, each category on its own."""
    return {
        category: encode_dataset(examples, tokenizer, vocabulary, max_length)
        for category, examples in by_category(reviews).items()
    }


# -- In this process ---------------------------------------------------------------------------------------------


def train_pooled(ground: Ground, config: TrainingConfig, advance: Advance) -> Trained:
    """Train centrally, on all sites' samples in one pot."""
    curve = Curve(ground, config)
    began = time.perf_counter()

    def watch(progress: RoundProgress) -> None:
        curve.look(progress.round, progress.optimizer)
        advance(progress.round)

    model = train_centrally(
        list(ground.shards.values()),
        ground.network,
        config,
        words=ground.vocabulary.tokens,
        on_round=watch,
    )
    return Trained(model_weights(model), curve.points, time.perf_counter() - began)


def train_by_simulation(ground: Ground, config: TrainingConfig, advance: Advance) -> Trained:
    """Train federatedly, one site after another in this process."""
    curve = Curve(ground, config)
    began = time.perf_counter()
    bytes_up = bytes_down = 0

    def watch(progress: SimulatedRound) -> None:
        nonlocal bytes_up, bytes_down
        bytes_up += progress.bytes_up
        bytes_down += progress.bytes_down
        curve.look(progress.number, progress.optimizer)
        advance(progress.number)

    model = simulate_run(ground.shards, ground.network, config, ground.vocabulary.tokens, watch)
    seconds = time.perf_counter() - began
    return Trained(model_weights(model), curve.points, seconds, bytes_up, bytes_down)


class Curve:
    """The accuracy on all validation samples now and then, with the parameters that the next round begins with."""

    def __init__(self, ground: Ground, config: TrainingConfig) -> None:
        self._ground = ground
        self._rounds = config.rounds
        self._every = max(1, config.rounds // VALIDATIONS)
        self.points: list[tuple[int, float]] = []

    def look(self, number: int, optimizer: ServerOptimizer) -> None:
        """Measure after the step of a round, where it is due."""
        if number % self._every and number != self._rounds:
            return
        held = network_tensors(optimizer.parameters)
        words = self._ground.vocabulary.tokens
        model = build_model(self._ground.network, held, words=words, copy=False)
        found = [evaluate(model, dataset) for dataset in self._ground.validation.values()]
        correct = sum(one.accuracy * one.samples for one in found)
        self.points.append((number, correct / sum(one.samples for one in found)))


# -- With real processes -----------------------------------------------------------------------------------------


def train_by_processes(folder: Path, ground: Ground, config: TrainingConfig, advance: Advance) -> Trained:
    """Train federatedly with a real aggregator and a real trainer for each site; goes on with a run that was stopped.

    `folder` holds the store and the run's journal. Raises TrainingFailed.
    """
    store = FolderStore(folder.resolve() / "store")
    spec = make_run_spec(ground, config, store)
    with started(LocalLauncher(folder.resolve() / "runs", secrets.token_hex()), spec) as launcher:
        status = follow(launcher, spec.run, advance)
    if status.phase != "done" or status.result is None:
        raise TrainingFailed(f"the run of processes in {folder}: {status.reason}")
    if status.missing_sites:
        raise TrainingFailed(f"the run of processes in {folder} lost {', '.join(status.missing_sites)}")
    artifact = load_artifact(store.artifact(status.result["artifact"]), status.result["artifact"])
    if artifact.vocabulary != ground.vocabulary:
        raise TrainingFailed(f"the run of processes in {folder} has another vocabulary than the corpus")
    return Trained(
        artifact.weights,
        # Sites measure what a round begins with: one step less than its number.
        [
            (one.number - 1, one.validation_accuracy)
            for one in status.rounds
            if one.validation_accuracy is not None
        ],
        sum(one.seconds for one in status.rounds),
        sum(one.bytes_up for one in status.rounds),
        sum(one.bytes_down for one in status.rounds),
    )


def make_run_spec(ground: Ground, config: TrainingConfig, store: FolderStore) -> RunSpec:
    """Cut the corpus into a site's shards each, and specify the run that trains on them."""

    def put(examples: dict[str, list[Example]], category: str) -> tuple[str, int]:
        mine = examples.get(category, [])
        return store.put_shard({**asdict(example), "site": category} for example in mine), len(mine)

    train, validation = by_category(ground.corpus.train), by_category(ground.corpus.validation)
    heldout = [{**asdict(review.example), "site": review.category} for review in ground.corpus.test]
    return RunSpec(
        run=f"seed-{config.seed}",
        store_url=store.root.as_uri(),
        sites={site: SiteSpec(*put(train, site), *put(validation, site)) for site in train},
        heldout_digest=store.put_shard(heldout),
        champion_digest=None,
        rounds=None,
        deadline_seconds=RUN_SECONDS,
        training=config.to_json(),
        network=ground.network.to_json(),
        vocabulary=ground.vocabulary_limits,
        join_deadline_seconds=ROUND_SECONDS,
        round_deadline_seconds=ROUND_SECONDS,
    )


@contextmanager
def started(launcher: LocalLauncher, spec: RunSpec) -> Iterator[LocalLauncher]:
    """Start a run, or go on with it; its processes end with the block."""
    try:
        if launcher.status(spec.run).phase == "failed":
            launcher.resume(spec.run)
        else:
            launcher.start(spec)
        yield launcher
    finally:
        launcher.stop(spec.run)


def follow(launcher: LocalLauncher, run: str, advance: Callable[[int], None]) -> RunStatus:
    """Wait until a run has ended, starting again what dies of it."""
    while True:
        status = launcher.status(run)
        advance(len(status.rounds))
        if status.phase in ("done", "failed"):
            return status
        launcher.heal(run)
        time.sleep(POLL_SECONDS)


# -- On disk -----------------------------------------------------------------------------------------------------


def keep_weights(path: Path, weights: Weights) -> None:
    """Write weights, whole or not at all."""
    write_whole(path, save({name: np.ascontiguousarray(value) for name, value in weights.items()}))


def load_model(path: Path, ground: Ground) -> SentimentLSTM:
    """Give the model of kept weights, ready to answer."""
    weights = {name: torch.from_numpy(value) for name, value in load_file(path).items()}
    return build_model(ground.network, weights, words=ground.vocabulary.tokens).eval()
