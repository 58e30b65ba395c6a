"""How good the network is when it is trained federatedly, when centrally, and what a linear model does.

    python -m federated.experiments.model [--quick] [--processes] [--seeds N] [--corpus ZIP]   (`make experiment-model`)

Each category of the corpus is a site. Federated training averages gradients (FedSGD): by default its sites compute
one after another in this process, with --processes in a trainer's process each, beside a real aggregator. Both make the
same sums and the same steps, bit for bit where as many threads compute a site's gradient.

What is finished is kept in var/experiments/model/, so a second start goes on where the first was stopped. Results go
to docs/experiments/model.json, .md and .png (with --quick to a folder in var/); the last line on standard output is
JSON.

Exit status: 0 done, 1 a training failed, 2 no corpus or no scikit-learn, 130 stopped.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table

from federated.experiments.baseline import STEPS, STRENGTHS, is_installed, measure_baseline
from federated.experiments.corpus import USUAL_PLACE, Corpus, NoCorpus, read_corpus
from federated.experiments.model_report import tabulate, write_report
from federated.experiments.progress import Advance, show_progress
from federated.experiments.scores import score_by_category
from federated.experiments.serving import measure_serving
from federated.experiments.stages import PACKAGE_ROOT, TRAINING_SOURCES, Outcome, Stages, settings_digest
from federated.experiments.training import (
    Ground,
    Trained,
    TrainingFailed,
    keep_weights,
    load_model,
    prepare_ground,
    train_by_processes,
    train_by_simulation,
    train_pooled,
)
from ml.model import count_parameters
from ml.model_config import ModelConfig
from ml.threads import threads_of_process
from ml.training_config import TrainingConfig

BASELINE_SOURCES: Final = ("federated/experiments/baseline.py", "federated/experiments/corpus.py")
EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130

NETWORK: Final = ModelConfig(
    vocabulary_size=0,  # once its vocabulary is known
    embedding_dim=128,
    hidden_dim=64,
    subword_buckets=2**16,
    gram_buckets=2**18,
    dropout=0.5,
    token_dropout=0.4,
)
TRAINING: Final = TrainingConfig(
    rounds=1176,  # 6 epochs of 50,180 samples
    global_batch_size=256,
    learning_rate=4e-3,
    final_rate_fraction=0.02,
    warmup_rounds=58,  # 5 %
    label_smoothing=0.05,
    averaging_decay=0.997,
    max_length=192,
    strategy="fedsgd",
)


Train = Callable[[Ground, TrainingConfig, Advance], Trained]


@dataclass(frozen=True)
class Extent:
    """How much an experiment does."""

    network: ModelConfig
    training: TrainingConfig
    train_samples: int | None = None  # None takes all
    other_samples: int | None = None  # of validation and test each
    vocabulary_max_size: int = 2**15
    vocabulary_min_count: int = 3
    timed_calls: int = 2000

    def cut(self, corpus: Corpus) -> Corpus:
        """Give the first samples of each part, which are in random order."""
        return Corpus(
            corpus.train[: self.train_samples],
            corpus.validation[: self.other_samples],
            corpus.test[: self.other_samples],
        )

    def vocabulary_limits(self) -> dict[str, int]:
        """Give the limits as a run's specification names them."""
        return {"max_size": self.vocabulary_max_size, "min_count": self.vocabulary_min_count}


FULL: Final = Extent(NETWORK, TRAINING)
QUICK: Final = Extent(
    NETWORK, TRAINING.with_rounds(40), train_samples=3000, other_samples=500, timed_calls=500
)


class Experiment:
    """One start of the command: its settings, and the stages that are finished."""

    def __init__(
        self, extent: Extent, corpus_path: Path, folder: Path, console: Console, *, processes: bool
    ) -> None:
        """Read the corpus; raises NoCorpus."""
        self.extent = extent
        self.console = console
        self.processes = processes
        self.stages = Stages(folder)
        self.corpus = extent.cut(read_corpus(corpus_path))
        self._data = {
            "corpus": hashlib.sha256(corpus_path.read_bytes()).hexdigest(),
            "train_samples": extent.train_samples,
            "other_samples": extent.other_samples,
        }

    def conduct(self, seeds: int) -> dict[str, Any]:
        """Go through all stages, and give the figures. Raises TrainingFailed."""
        baseline = self._measure_baseline()
        self.console.print("encoding the corpus …")
        ground = prepare_ground(
            self.corpus, self.extent.network, self.extent.training, self.extent.vocabulary_limits()
        )
        first = self.extent.training.seed
        configs = [replace(self.extent.training, seed=seed) for seed in range(first, first + seeds)]
        central = [self._train("central", ground, config) for config in configs]
        federated = [self._train(self._federated_way(), ground, config) for config in configs]
        serving = self._measure_serving(ground, configs[0])
        return self._figures(ground, baseline, central, federated, serving)

    def _federated_way(self) -> str:
        return "processes" if self.processes else "simulated"

    def _measure_baseline(self) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            with show_progress(self.console, "linear baseline", STEPS) as advance:
                return measure_baseline(self.corpus, advance)

        settings = {**self._data, "strengths": list(STRENGTHS)}
        return self._finish("baseline", settings, make, sources=BASELINE_SOURCES)

    def _settings(self, config: TrainingConfig) -> dict[str, Any]:
        return {
            **self._data,
            "network": self.extent.network.to_json(),
            "training": config.to_json(),
            "vocabulary": self.extent.vocabulary_limits(),
        }

    def _train(self, way: str, ground: Ground, config: TrainingConfig) -> dict[str, Any]:
        """Train and score once; the weights lie beside the outcome."""
        settings = self._settings(config)

        def make() -> dict[str, Any]:
            with show_progress(self.console, f"{way}, seed {config.seed}", config.rounds) as advance:
                trained = self._trainer(way, settings)(ground, config, advance)
            weights = self.stages.path(way, settings, ".safetensors")
            keep_weights(weights, trained.weights)
            model = load_model(weights, ground)
            return describe(config, trained) | {
                "validation": score_by_category(model, ground.validation),
                "test": score_by_category(model, ground.test),
            }

        return self._finish(way, settings, make)

    def _trainer(self, way: str, settings: Mapping[str, Any]) -> Train:
        if way == "central":
            return train_pooled
        if way == "simulated":
            return train_by_simulation
        folder = self.stages.folder / f"processes-{settings_digest(settings)}"
        return functools.partial(train_by_processes, folder)

    def _measure_serving(self, ground: Ground, config: TrainingConfig) -> dict[str, Any]:
        way, settings = self._federated_way(), self._settings(config)

        def make() -> dict[str, Any]:
            model = load_model(self.stages.path(way, settings, ".safetensors"), ground)
            calls = self.extent.timed_calls
            with show_progress(self.console, "serving on one core", calls) as advance:
                return measure_serving(model, ground, self.stages.folder / "artifacts", calls, advance)

        return self._finish("serving", {**settings, "way": way, "calls": self.extent.timed_calls}, make)

    def _finish(
        self,
        stage: str,
        settings: Mapping[str, Any],
        make: Callable[[], Outcome],
        sources: Sequence[str] = TRAINING_SOURCES,
    ) -> Outcome:
        known = len(self.stages.kept)
        outcome = self.stages.finish(stage, settings, make, sources)
        if len(self.stages.kept) > known:
            self.console.print(f"{stage}: finished before, kept in {self.stages.folder}")
            if stage in self.stages.outdated:
                self.console.print(
                    f"  made by other source files than today's; to make it anew, remove "
                    f"{self.stages.path(stage, settings)}",
                    style="yellow",
                )
        return outcome

    def _figures(
        self,
        ground: Ground,
        baseline: dict[str, Any],
        central: list[dict[str, Any]],
        federated: list[dict[str, Any]],
        serving: dict[str, Any],
    ) -> dict[str, Any]:
        figures = {"baseline": baseline, "central": average(central), "federated": average(federated)}
        ours, theirs = figures["federated"]["test"]["macro_f1"], figures["central"]["test"]["macro_f1"]
        return {
            **figures,
            "federated_way": self._federated_way(),
            "federated_minus_central": ours - theirs,
            "federated_minus_baseline": ours - baseline["test"]["macro_f1"],
            "serving": serving,
            "parameters": count_parameters(ground.network),
            "vocabulary_size": len(ground.vocabulary),
            "network": ground.network.to_json(),
            "training": self.extent.training.to_json(),
            "corpus": {
                "sha256": self._data["corpus"],
                "train": len(self.corpus.train),
                "validation": len(self.corpus.validation),
                "test": len(self.corpus.test),
                "sites": {site: len(shard) for site, shard in ground.shards.items()},
            },
            "outdated_stages": sorted(set(self.stages.outdated)),
        }


def describe(config: TrainingConfig, trained: Trained) -> dict[str, Any]:
    """Give what a training did, without its weights."""
    return {
        "seed": config.seed,
        "rounds": config.rounds,
        "seconds": round(trained.seconds, 1),
        "bytes_up": trained.bytes_up,
        "bytes_down": trained.bytes_down,
        "curve": [[step, accuracy] for step, accuracy in trained.curve],
    }


def average(trainings: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the figures of trainings that differ in their seed; the trainings themselves are under "seeds"."""

    def over_seeds(part: str) -> dict[str, float]:
        return {name: mean(one[part][name] for one in trainings) for name in ("macro_f1", "accuracy")}

    return {"validation": over_seeds("validation"), "test": over_seeds("test"), "seeds": trainings}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m federated.experiments.model", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="few samples and rounds: does it work, in two minutes"
    )
    parser.add_argument(
        "--corpus", type=Path, default=USUAL_PLACE, help="online_shopping_10_cats.zip (default: %(default)s)"
    )
    parser.add_argument(
        "--processes", action="store_true", help="federated training with a real aggregator and trainers"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many trainings of either kind (default: %(default)s)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=PACKAGE_ROOT / "var" / "experiments" / "model",
        help="where finished stages are kept",
    )
    parser.add_argument(
        "--report", type=Path, help="folder of model.json, .md and .png (default: docs/experiments)"
    )
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    if options.report is None:
        options.report = options.work / "quick" if options.quick else PACKAGE_ROOT / "docs" / "experiments"
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = parse(arguments)
    console = Console(stderr=True)
    if not is_installed():
        console.print(
            "scikit-learn, of the linear baseline, is not installed here: make experiment-model installs it"
        )
        return EXIT_USAGE
    torch.set_num_threads(threads_of_process())
    extent = QUICK if options.quick else FULL
    try:
        experiment = Experiment(extent, options.corpus, options.work, console, processes=options.processes)
        figures = {"quick": options.quick, **experiment.conduct(options.seeds)}
    except NoCorpus as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return EXIT_USAGE
    except TrainingFailed as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.print(f"stopped; what is finished is kept in {options.work}: the same command goes on")
        return EXIT_STOPPED
    write_report(options.report, figures)
    print_table(figures)
    console.print(f"written to {options.report}: model.json, model.md, model.png")
    print(json.dumps(figures, ensure_ascii=False))
    return 0


def print_table(figures: Mapping[str, Any]) -> None:
    """Print the main table on standard output."""
    header, *rows = tabulate(figures)
    table = Table()
    for position, title in enumerate(header):
        table.add_column(title, justify="right" if position else "left", no_wrap=not position)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # A pipe has no width of its own, and 80 columns would cut the header.
    (console if console.is_terminal else Console(width=110)).print(table)


if __name__ == "__main__":
    sys.exit(main())
