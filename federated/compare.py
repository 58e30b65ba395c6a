"""How far a federated run is from training the same network centrally on the pooled shards.

    python -m federated.compare [RUN_DIR]        e.g. var/runs/run-1, the default

Same vocabulary, configuration, start, rounds and samples a round; only the place where the samples lie differs, and
with it the order in which they are drawn. Both models are scored on the run's held-out samples. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from federated.protocol import RunSpec, read_progress
from federated.store import open_store
from ml.artifact import load_artifact
from ml.data import Dataset, encode_dataset, read_examples
from ml.tokenizer import make_tokenizer
from ml.train import evaluate, train_centrally
from ml.training_config import TrainingConfig


def compare(run_dir: Path, console: Console) -> dict[str, float | int | str]:
    """Train centrally what the run trained federatedly. Raises SystemExit for a run that is not there or not done."""
    spec = RunSpec.from_json((run_dir / "run.json").read_text(encoding="utf-8"))
    status = read_progress(run_dir / "progress.jsonl")
    if status.result is None or spec.champion_digest is not None:
        raise SystemExit(
            f"{run_dir} is not a finished first training (phase {status.phase}); a comparison needs one"
        )
    report = status.result["report"]
    store = open_store(spec.store_url)
    artifact = load_artifact(store.artifact(report["artifact"]), report["artifact"])
    config = TrainingConfig.from_json(report["training"])
    tokenizer = make_tokenizer(artifact.tokenizer)

    def read(digest: str) -> Dataset:
        return encode_dataset(
            read_examples(store.shard(digest)), tokenizer, artifact.vocabulary, config.max_length
        )

    datasets = [read(site.shard_digest) for site in spec.sites.values()]
    began = time.monotonic()
    with Progress(console=console) as progress:
        bar = progress.add_task("central training", total=config.rounds)
        model = train_centrally(
            datasets,
            artifact.network,
            config,
            on_round=lambda _round: progress.advance(bar),
        )
    central = evaluate(model, read(spec.heldout_digest))
    federated = report["candidate_evaluation"]
    drawn = sum(int(site["samples"]) for record in status.rounds for site in record.sites.values())
    return {
        "federated_macro_f1": federated["macro_f1"],
        "central_macro_f1": central.macro_f1,
        "difference": federated["macro_f1"] - central.macro_f1,
        "federated_accuracy": federated["accuracy"],
        "central_accuracy": central.accuracy,
        "federated_samples_drawn": drawn,
        "central_samples_drawn": config.rounds * min(config.global_batch_size, sum(map(len, datasets))),
        "rounds": config.rounds,
        "federated_seconds": round(report["seconds"], 1),
        "central_seconds": round(time.monotonic() - began, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m federated.compare", description=__doc__.split("\n")[0])
    parser.add_argument("run_dir", nargs="?", type=Path, default=Path("var/runs/run-1"))
    options = parser.parse_args(arguments)
    if not (options.run_dir / "run.json").is_file():
        raise SystemExit(
            f"{options.run_dir} holds no run: name a folder like var/runs/run-1, made by a training here"
        )
    print(json.dumps(compare(options.run_dir, Console(stderr=True))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
