"""Models of the size that a first training gives, made once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from ml.artifact import ArtifactError, load_artifact
from ml.bench.swaps import point_at
from ml.bootstrap import read_bootstrap_corpus
from ml.data import Dataset, Example, encode_dataset
from ml.model_config import FIRST_NETWORK, ModelConfig
from ml.serve.store import FolderStore
from ml.text import split_of
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.training_config import FIRST_TRAINING, TrainingConfig
from ml.vocabulary import Vocabulary, build_vocabulary, count_tokens

Report = Callable[[str], None]
_TRAINING: Final = FIRST_TRAINING.with_rounds(80)  # enough to be sure of most reviews


@dataclass(frozen=True)
class Recipe:
    """What the benchmark's models are made of; all of it is in the name of the folder that keeps them."""

    network: ModelConfig = FIRST_NETWORK
    training: TrainingConfig = _TRAINING
    vocabulary_max_size: int = 20_000
    vocabulary_min_count: int = 2
    every: int = 1  # of the corpus' reviews one in so many

    def digest(self) -> str:
        """Name the models: by the recipe, and by the code that makes them."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for path in sorted(Path(__file__).resolve().parents[1].glob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


FIRST_MODEL: Final = Recipe()


@dataclass(frozen=True)
class Models:
    """Two artifacts in one folder: the one that is measured, and another of the same size to swap it with."""

    folder: Path  # holds <digest>/
    first: str  # digest
    second: str | None


def keep_models(cache: Path, recipe: Recipe, report: Report) -> Models:
    """Give the recipe's models, making them where `cache` has none (torch; about half a minute on two cores)."""
    home = cache / recipe.digest()
    names = home / "models.json"
    if names.exists():
        kept = Models(home, **json.loads(names.read_bytes()))
        try:
            for digest in (kept.first, kept.second):
                load_artifact(home / str(digest), str(digest))
            return kept
        except ArtifactError as error:
            report(f"{error}: making it anew")
    shutil.rmtree(home, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as folder:
        first, second = _train_models(Path(folder), recipe, report)
        (Path(folder) / names.name).write_text(json.dumps({"first": first, "second": second}))
        Path(folder).chmod(0o755)
        os.rename(folder, home)
    return Models(home, first, second)


def models_of_store(store: Path) -> Models:
    """Take a store's champion, and the one before it; raises PointerError or ArtifactError."""
    pointer = FolderStore(store).read_pointer()
    for digest in filter(None, (pointer.digest, pointer.previous)):
        FolderStore(store).load(digest)
    return Models(store / "artifacts", pointer.digest, pointer.previous)


def copy_to_store(models: Models, store: Path) -> Path:
    """Make a store of the models, its pointer at the first: one whose pointer may be moved."""
    for digest in filter(None, (models.first, models.second)):
        shutil.copytree(models.folder / digest, store / "artifacts" / digest)
    point_at(store, models.first, models.second)
    return store


def _train_models(folder: Path, recipe: Recipe, report: Report) -> tuple[str, str]:
    """Train once; the second model is the same training as it stood after half of its rounds."""
    import torch

    from ml.threads import available_cpus
    from ml.train import RoundProgress, train_centrally

    torch.set_num_threads(available_cpus())
    examples = read_bootstrap_corpus().examples[:: recipe.every]
    dataset, vocabulary = _encode(examples, recipe)
    network = replace(recipe.network, vocabulary_size=len(vocabulary))
    halfway: dict[str, Any] = {}

    def watch(progress: RoundProgress) -> None:
        if progress.round % 10 == 0:
            report(f"training the model that is measured: round {progress.round} of {progress.rounds}")
        if progress.round == progress.rounds // 2:
            halfway.update(progress.optimizer.final_parameters())

    trained = train_centrally([dataset], network, recipe.training, words=vocabulary.tokens, on_round=watch)
    report("exporting the models")
    finished = {name: value.detach() for name, value in trained.named_parameters()}
    validation = [example for example in examples if split_of(example.text) == "validation"]
    digests = [
        _export(folder, weights, network, vocabulary, recipe, validation) for weights in (finished, halfway)
    ]
    return digests[0], digests[1]


def _encode(examples: list[Example], recipe: Recipe) -> tuple[Dataset, Vocabulary]:
    tokenizer = make_tokenizer(TokenizerSettings())
    counts = count_tokens((example.text for example in examples), tokenizer)
    vocabulary = build_vocabulary(
        counts, max_size=recipe.vocabulary_max_size, min_count=recipe.vocabulary_min_count
    )
    seen = [example for example in examples if split_of(example.text) == "train"]
    return encode_dataset(seen, tokenizer, vocabulary, recipe.training.max_length), vocabulary


def _export(
    folder: Path,
    weights: dict[str, Any],
    network: ModelConfig,
    vocabulary: Vocabulary,
    recipe: Recipe,
    validation: list[Example],
) -> str:
    from ml.export import export_artifact

    written = export_artifact(
        folder,
        weights={name: value.numpy() for name, value in weights.items()},
        config=network,
        tokenizer=TokenizerSettings(),
        vocabulary=vocabulary,
        max_length=recipe.training.max_length,
        validation=validation,
    )
    return written.digest
