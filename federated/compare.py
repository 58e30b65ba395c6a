"""How far federated training is from training the same network centrally on the pooled shards.

    python -m federated.compare [RUN_DIR] [--seeds N]        e.g. var/runs/run-1, the default

Same vocabulary, configuration, start, rounds and samples a round; only the place where the samples lie differs, and
with it the order in which they are drawn. Two trainings of either kind that differ in their seed alone are a few
thousandths of macro-F1 apart on a test set of this size, so the figure to look at is the mean over seeds: the first
is the run's own result, the others are trained here, site by site in one process. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.progress import Progress

from federated.protocol import DIARY, RunSpec, read_progress
from federated.simulation import simulate_run
from federated.store import STORE_TOKEN_VARIABLE, open_store
from ml.artifact import load_artifact
from ml.data import Dataset, encode_dataset, read_examples
from ml.model import SentimentLSTM
from ml.model_config import ModelConfig
from ml.tokenizer import make_tokenizer
from ml.train import evaluate, train_centrally
from ml.training_config import TrainingConfig


@dataclass(frozen=True)
class Ground:
    """What both kinds of training start from."""

    shards: Mapping[str, Dataset]  # by site
    heldout: Dataset
    network: ModelConfig
    words: tuple[str, ...]  # of the vocabulary
    config: TrainingConfig

    def with_seed(self, seed: int) -> Ground:
        return replace(self, config=replace(self.config, seed=seed))

    def samples_a_round(self) -> int:
        return min(self.config.global_batch_size, sum(map(len, self.shards.values())))


def compare(run_dir: Path, console: Console, seeds: int = 5) -> dict[str, Any]:
    """Compare a run with central training. Raises SystemExit for a run that is not there or not done."""
    spec = RunSpec.from_json((run_dir / "run.json").read_text(encoding="utf-8"))
    status = read_progress(run_dir / DIARY)
    if status.result is None or spec.champion_digest is not None:
        raise SystemExit(
            f"{run_dir} is not a finished first training (phase {status.phase}); a comparison needs one"
        )
    report = status.result["report"]
    ground = read_ground(spec, report)
    federated = [float(report["candidate_evaluation"]["macro_f1"])]
    central: list[float] = []
    first = ground.config.seed + spec.seed
    with Progress(console=console) as progress:
        bar = progress.add_task("training", total=(2 * seeds - 1) * ground.config.rounds)
        for seed in range(first, first + seeds):
            seeded = ground.with_seed(seed)
            if seed != first:
                federated.append(score(train_by_sites(seeded, lambda: progress.advance(bar)), ground))
            central.append(score(train_pooled(seeded, lambda: progress.advance(bar)), ground))
    return {
        "federated_macro_f1": mean(federated),
        "central_macro_f1": mean(central),
        "difference": mean(federated) - mean(central),
        "seeds": [
            {"seed": first + index, "federated": ours, "central": theirs, "difference": ours - theirs}
            for index, (ours, theirs) in enumerate(zip(federated, central, strict=True))
        ],
        "rounds": ground.config.rounds,
        "federated_samples_drawn": sum(
            int(site["samples"]) for record in status.rounds for site in record.sites.values()
        ),
        "central_samples_drawn": ground.config.rounds * ground.samples_a_round(),
        "test_samples": len(ground.heldout),
    }


def read_ground(spec: RunSpec, report: Mapping[str, Any]) -> Ground:
    """Encode the run's shards as its trainers did."""
    store = open_store(spec.store_url, token=os.environ.get(STORE_TOKEN_VARIABLE, ""))
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder)  # what a store behind HTTP holds; one in a folder is read where it is
        artifact = load_artifact(store.fetch_artifact(report["artifact"], fetched), report["artifact"])
        config = TrainingConfig.from_json(report["training"])
        tokenizer = make_tokenizer(artifact.tokenizer)

        def read(digest: str) -> Dataset:
            examples = read_examples(store.fetch_shard(digest, fetched))
            return encode_dataset(examples, tokenizer, artifact.vocabulary, config.max_length)

        shards = {site: read(shard.shard_digest) for site, shard in spec.sites.items()}
        return Ground(shards, read(spec.heldout_digest), artifact.network, artifact.vocabulary.tokens, config)


def train_by_sites(ground: Ground, on_round: Callable[[], None]) -> SentimentLSTM:
    """Train as a run does, each site's batches from its own shard."""
    return simulate_run(ground.shards, ground.network, ground.config, ground.words, lambda _round: on_round())


def train_pooled(ground: Ground, on_round: Callable[[], None]) -> SentimentLSTM:
    """Train as if all sites had put their samples into one pot."""
    return train_centrally(
        list(ground.shards.values()),
        ground.network,
        ground.config,
        words=ground.words,
        on_round=lambda _round: on_round(),
    )


def score(model: SentimentLSTM, ground: Ground) -> float:
    """Macro-F1 on the held-out samples."""
    return float(evaluate(model, ground.heldout).macro_f1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m federated.compare", description=__doc__.split("\n")[0])
    parser.add_argument("run_dir", nargs="?", type=Path, default=Path("var/runs/run-1"))
    parser.add_argument(
        "--seeds", type=int, default=5, help="how many trainings of either kind (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    if not (options.run_dir / "run.json").is_file():
        raise SystemExit(
            f"{options.run_dir} holds no run: name a folder like var/runs/run-1, made by a training here"
        )
    print(json.dumps(compare(options.run_dir, Console(stderr=True), options.seeds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
