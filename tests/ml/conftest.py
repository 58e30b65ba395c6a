"""Two small but real artifacts, trained in about a second each, and the means to serve them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import torch

from ml.artifact import WrittenArtifact, load_artifact
from ml.bootstrap import BootstrapCorpus, read_bootstrap_corpus
from ml.data import Dataset, Example, encode_dataset
from ml.export import export_artifact, model_weights
from ml.model import ModelConfig, SentimentLSTM
from ml.tokenizer import Tokenizer, TokenizerSettings, make_tokenizer
from ml.train import train_centrally
from ml.training_config import FIRST_TRAINING
from ml.vocabulary import Vocabulary, build_vocabulary, count_tokens

MAX_LENGTH = 32
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TinyModel:
    model: SentimentLSTM
    config: ModelConfig
    vocabulary: Vocabulary
    artifact: WrittenArtifact


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus() -> BootstrapCorpus:
    return read_bootstrap_corpus()


@pytest.fixture(scope="session")
def some_examples(corpus: BootstrapCorpus) -> list[Example]:
    """Short reviews of both classes, and a few made neutral so that every class occurs."""
    chosen = [example for example in corpus.examples[::40] if len(example.text) < 120]
    return [
        replace(example, label="neutral") if index % 7 == 0 else example
        for index, example in enumerate(chosen)
    ]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer(TokenizerSettings())


@pytest.fixture(scope="session")
def vocabulary(some_examples: list[Example], tokenizer: Tokenizer) -> Vocabulary:
    counts = count_tokens((example.text for example in some_examples), tokenizer)
    return build_vocabulary(counts, max_size=500, min_count=2)


@pytest.fixture(scope="session")
def dataset(some_examples: list[Example], tokenizer: Tokenizer, vocabulary: Vocabulary) -> Dataset:
    return encode_dataset(some_examples, tokenizer, vocabulary, MAX_LENGTH)


def train_tiny(
    dataset: Dataset,
    vocabulary: Vocabulary,
    parent: Path,
    seed: int,
    validation: Sequence[Example] = (),
) -> TinyModel:
    config = ModelConfig(
        len(vocabulary), embedding_dim=12, hidden_dim=8, subword_buckets=64, gram_buckets=512
    )
    training = replace(FIRST_TRAINING.with_rounds(25), seed=seed, global_batch_size=64, learning_rate=0.02)
    model = train_centrally([dataset], config, training, words=vocabulary.tokens)
    artifact = export_artifact(
        parent,
        weights=model_weights(model),
        config=config,
        tokenizer=TokenizerSettings(),
        vocabulary=vocabulary,
        max_length=MAX_LENGTH,
        validation=validation,
    )
    return TinyModel(model, config, vocabulary, artifact)


@pytest.fixture(scope="session")
def tiny(dataset: Dataset, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return train_tiny(dataset, vocabulary, tmp_path_factory.mktemp("artifacts"), seed=1)


@pytest.fixture(scope="session")
def other_tiny(
    dataset: Dataset, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> TinyModel:
    return train_tiny(dataset, vocabulary, tmp_path_factory.mktemp("artifacts"), seed=2)


@pytest.fixture(scope="session")
def held_out(corpus: BootstrapCorpus) -> list[Example]:
    """Reviews that no tiny model was trained on, short and long ones."""
    return [example for index, example in enumerate(corpus.examples[::13]) if index * 13 % 40]


@pytest.fixture(scope="session")
def tiny_int8(
    dataset: Dataset,
    vocabulary: Vocabulary,
    held_out: list[Example],
    tmp_path_factory: pytest.TempPathFactory,
) -> TinyModel:
    """The tiny model, judged on enough samples to be served in 8-bit integers."""
    return train_tiny(dataset, vocabulary, tmp_path_factory.mktemp("artifacts"), seed=1, validation=held_out)


@dataclass(frozen=True)
class Store:
    """A store as the blog keeps it, with the champion moved the way the blog moves it."""

    path: Path

    def add(self, artifact: WrittenArtifact) -> Path:
        target = self.path / "artifacts" / artifact.digest
        shutil.copytree(artifact.path, target)
        return target

    def point_at(self, digest: str, previous: str | None = None) -> None:
        self.write_pointer(json.dumps({"digest": digest, "previous": previous}))

    def write_pointer(self, content: str) -> None:
        temporary = self.path / "champion.json.new"
        temporary.write_text(content)
        os.replace(temporary, self.path / "champion.json")


@pytest.fixture
def store(tmp_path: Path, tiny: TinyModel) -> Store:
    """A store that holds one artifact and no pointer yet."""
    made = Store(tmp_path / "store")
    made.add(tiny.artifact)
    load_artifact(made.path / "artifacts" / tiny.artifact.digest, tiny.artifact.digest)
    return made


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path


ServeStore = Callable[[Store], AbstractContextManager[Server]]


@pytest.fixture
def serve_store(tmp_path: Path) -> ServeStore:
    """Run the real service, in a process of its own, over a store."""

    @contextmanager
    def serve(store: Store) -> Iterator[Server]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tmp_path / f"serve-{port}.log"
        command = [sys.executable, "-m", "ml.serve", "--store", store.path.as_uri(), "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            _await_live(url, process, log)
            yield Server(url, process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    return serve


def _await_live(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/livez", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"the service did not start: {log.read_text()}")
