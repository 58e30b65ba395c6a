"""What non-IID data does to the strategies, on a public corpus.

    make experiment-noniid [QUICK=1] [CORPUS=path/to/online_shopping_10_cats.zip] [ARGS=…]

Gradient averaging, FedAvg, FedOpt and SCAFFOLD against central training, over ten sites that share the corpus IID, by
Dirichlet(1) and Dirichlet(0.1) of the labels, or by category. All see the same number of samples; in how many rounds
and bytes differs, so that accuracy is drawn against each of the three. Also what the upload encodings spare and cost.

A finished training is a file under var/experiments/noniid, named by a digest of its settings: what was interrupted goes
on where it stopped. The report goes to docs/experiments, that of QUICK=1 beside the results.

    ARGS=--tune      try the grids of learning rates on the validation samples, and say which are best
    ARGS=--report    draw and tabulate again what docs/experiments/noniid.json holds, without training
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from federated.experiments.corpus import USUAL_PLACE, NoCorpus
from federated.experiments.noniid_report import BATCH, SPLITS, write_report
from federated.experiments.noniid_runs import finish_runs
from federated.experiments.noniid_training import LOCAL_STEPS, MAX_LENGTH, Ground, Run, prepare
from federated.store import write_whole
from ml.training_config import TrainingConfig

RESULTS: Final = Path("var/experiments/noniid")
DOCS: Final = Path("docs/experiments")

_ONE_BATCH: Final = TrainingConfig(
    rounds=0, global_batch_size=BATCH, learning_rate=0.0, max_length=MAX_LENGTH
)
_LOCAL: Final = replace(_ONE_BATCH, local_steps=LOCAL_STEPS, learning_rate=1.0)

# The learning rates are the best of GRIDS on the validation samples, Dirichlet(1), seed 0:
# `make experiment-noniid ARGS=--tune`. "fedsgd-sgd" is gradient averaging without AdamW at the server: it says what of
# the difference to FedAvg, whose sites and server make plain steps, comes of averaging gradients. The two of half the
# rate were added when the best one was seen to run away where sites are smaller or further apart than in the tuning.
METHODS: Final[Mapping[str, TrainingConfig]] = {
    "central": replace(_ONE_BATCH, learning_rate=1.6e-2),
    "fedsgd": replace(_ONE_BATCH, learning_rate=1.6e-2),
    "fedsgd-sgd": replace(_ONE_BATCH, server_optimizer="sgd", learning_rate=3.0),
    "fedavg": replace(_LOCAL, strategy="fedavg", local_learning_rate=4.0),
    "fedavg-half": replace(_LOCAL, strategy="fedavg", local_learning_rate=2.0),
    "fedopt": replace(_LOCAL, strategy="fedopt", local_learning_rate=2.0, learning_rate=8e-2),
    "scaffold": replace(_LOCAL, strategy="scaffold", local_learning_rate=4.0),
    "scaffold-half": replace(_LOCAL, strategy="scaffold", local_learning_rate=2.0),
}
ENCODED: Final[Mapping[str, TrainingConfig]] = {
    "fedsgd fp16": replace(METHODS["fedsgd"], encoding="fp16"),
    "fedsgd topk": replace(METHODS["fedsgd"], encoding="topk"),
}
_ADAM_RATES: Final = tuple({"learning_rate": rate} for rate in (4e-3, 8e-3, 1.6e-2, 3.2e-2))
_SITE_RATES: Final = tuple({"local_learning_rate": rate} for rate in (1.0, 2.0, 4.0, 8.0))
GRIDS: Final[Mapping[str, Sequence[Mapping[str, float]]]] = {
    "central": _ADAM_RATES,
    "fedsgd": _ADAM_RATES,
    "fedsgd-sgd": [{"learning_rate": rate} for rate in (0.3, 1.0, 3.0, 10.0)],
    "fedavg": _SITE_RATES,
    "fedopt": [
        {"local_learning_rate": site, "learning_rate": server}
        for site in (1.0, 2.0)
        for server in (1e-2, 2e-2, 4e-2, 8e-2, 0.16)
    ],
    "scaffold": _SITE_RATES,
}


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    train_samples: int
    measured_samples: int
    batches: int  # of the size of a round's, that each training sees
    seeds: tuple[int, ...]


FULL: Final = Scale(12_000, 2_000, batches=100, seeds=(1, 2, 3))
QUICK: Final = Scale(6_000, 1_000, batches=60, seeds=(1,))
TUNING: Final = Scale(12_000, 2_000, batches=60, seeds=(0,))  # short, as there are many


def plan(scale: Scale) -> list[Run]:
    """List the trainings of the experiment."""
    runs = []
    for seed in scale.seeds:
        for method, training in METHODS.items():
            for split in ("pooled",) if method == "central" else SPLITS:
                runs.append(Run(method, split, _fit(training, scale, seed)))
        runs += [Run(name, "category", _fit(training, scale, seed)) for name, training in ENCODED.items()]
    return runs


def plan_tuning(scale: Scale) -> list[Run]:
    """List the trainings that choose the learning rates."""
    return [
        Run(
            method,
            "pooled" if method == "central" else "dirichlet-1",
            _fit(replace(METHODS[method], **rates), scale, seed=0),  # type: ignore[arg-type]
            measured_on="validation",
        )
        for method, grid in GRIDS.items()
        for rates in grid
    ]


def _fit(training: TrainingConfig, scale: Scale, seed: int) -> TrainingConfig:
    """Give a training as many rounds as see the scale's samples, a tenth of them to warm up in."""
    rounds = scale.batches // training.local_steps
    return replace(training, rounds=rounds, warmup_rounds=max(1, rounds // 10), seed=seed)


def summarize(results: Sequence[Mapping[str, Any]], ground: Ground, scale: Scale) -> dict[str, Any]:
    """Give what the report is made of: the curves, and the settings once."""
    return {
        **ground.identity,
        "batches": scale.batches,
        "local_steps": LOCAL_STEPS,
        "seeds": list(scale.seeds),
        "methods": {
            name: {key: value for key, value in training.to_json().items() if key not in ("seed", "rounds")}
            for name, training in {**METHODS, **ENCODED}.items()
        },
        "runs": [
            {
                "method": result["settings"]["method"],
                "split": result["settings"]["split"],
                "seed": result["settings"]["training"]["seed"],
                "failure": result["failure"],
                "seconds": result["seconds"],
                "columns": _told(result),
            }
            for result in results
        ],
    }


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    """Give a result's columns; of central training without the bytes, which nobody would have sent."""
    central = result["settings"]["method"] == "central"
    return {
        name: column
        for name, column in result["columns"].items()
        if not (central and name.startswith("bytes"))
    }


def tell_tuning(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Say what each pair of rates reached on the validation samples."""
    for result in results:
        training = result["settings"]["training"]
        reached = result["columns"].get("macro_f1", [0.0])[-1]
        console.print(
            f"{result['settings']['method']:10}  server {training['learning_rate']:<6g} "
            f"sites {training['local_learning_rate']:<4g} macro-F1 {reached:.4f} {result['failure'][:60]}"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m federated.experiments.noniid", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--corpus", type=Path, default=USUAL_PLACE, help="online_shopping_10_cats.zip (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one seed and fewer samples: minutes")
    parser.add_argument("--seeds", type=int, help="so many of the seeds alone")
    parser.add_argument("--tune", action="store_true", help="try the grids of learning rates instead")
    parser.add_argument("--report", action="store_true", help="write the report again, without training")
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds < 1:
        parser.error("--seeds must be at least 1")
    docs = RESULTS / "quick" if options.quick else DOCS
    console = Console(stderr=True)
    if options.report:
        if not (docs / "noniid.json").is_file():
            console.print(f"{docs / 'noniid.json'}: no results to report; run the experiment first")
            return 2
        write_report(docs)
        return 0
    scale = TUNING if options.tune else QUICK if options.quick else FULL
    scale = replace(scale, seeds=scale.seeds[: options.seeds])
    try:
        ground = prepare(options.corpus, scale.train_samples, scale.measured_samples)
    except NoCorpus as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return 2
    runs = plan_tuning(scale) if options.tune else plan(scale)
    try:
        results = finish_runs(runs, ground, RESULTS, console)
    except KeyboardInterrupt:
        console.print("Interrupted. What is finished is kept; the same command goes on.")
        return 130
    if options.tune:
        tell_tuning(results, Console())
        return 0
    docs.mkdir(parents=True, exist_ok=True)
    write_whole(
        docs / "noniid.json", json.dumps(summarize(results, ground, scale), separators=(",", ":")).encode()
    )
    write_report(docs)
    console.print(f"The report is {docs / 'noniid.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
