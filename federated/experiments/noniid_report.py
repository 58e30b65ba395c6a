"""The tables and plots of the non-IID experiment, from docs/experiments/noniid.json alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLITS: Final[Mapping[str, str]] = {
    "iid": "IID",
    "dirichlet-1": "Dirichlet(1)",
    "dirichlet-0.1": "Dirichlet(0.1)",
    "category": "by category",
}
LEVELS: Final = (0.80, 0.90)  # of macro-F1
BATCH: Final = 256  # samples of all sites in a step
BEGIN: Final = "<!-- tables: written by the experiment -->"
END: Final = "<!-- end of tables -->"
_COLOURS: Final = {  # of Okabe and Ito, told apart by the colour-blind too
    "central": "#000000",
    "fedsgd": "#0072B2",
    "fedsgd-sgd": "#56B4E9",
    "fedavg": "#D55E00",
    "fedavg-half": "#B8A000",
    "fedopt": "#009E73",
    "scaffold": "#CC79A7",
    "scaffold-half": "#999999",
    "fedsgd fp16": "#E69F00",
    "fedsgd topk": "#009E73",
}
_MEGA: Final = 1e6


@dataclass(frozen=True)
class Training:
    """One training's curve; each column has an entry a point."""

    method: str
    split: str
    seed: int
    failure: str
    columns: Mapping[str, Sequence[float]]

    def column(self, name: str) -> np.ndarray:
        """Give a column; "megabytes" are those of both ways."""
        if name == "megabytes":
            values: np.ndarray = (self.column("bytes_up") + self.column("bytes_down")) / _MEGA
        else:
            values = np.array(self.columns[name], dtype=np.float64)
        return values

    def final(self, name: str) -> float:
        """Give what a column ends with."""
        return float(self.column(name)[-1])

    def reached(self, level: float) -> int | None:
        """Give the first point at which macro-F1 is at least so high."""
        above = np.flatnonzero(self.column("macro_f1") >= level)
        return int(above[0]) if len(above) else None

    def falls(self) -> np.ndarray:
        """Give how much the accuracy of the moment fell from each point to the next, 0 where it rose."""
        return np.maximum(0.0, -np.diff(self.column("raw_accuracy")))


class Trainings:
    """All of an experiment."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        keys = ("method", "split", "seed", "failure", "columns")
        self._all = [Training(**{key: run[key] for key in keys}) for run in document["runs"]]

    def of(self, method: str, split: str) -> list[Training]:
        """Give a method's whole trainings on a split, one a seed; central training knows no split."""
        return [run for run in self._made(method, split) if not run.failure]

    def failed(self, method: str, split: str) -> str:
        """Say how many of them ended early; empty when none did."""
        made = self._made(method, split)
        failed = sum(bool(run.failure) for run in made)
        return f"{failed} of {len(made)} failed" if failed else ""

    def _made(self, method: str, split: str) -> list[Training]:
        wanted = "pooled" if method == "central" else split
        return [run for run in self._all if (run.method, run.split) == (method, wanted)]

    def methods(self, *, encoded: bool = False) -> list[str]:
        """Name the methods, or those that are an encoding of gradient averaging."""
        return [
            name
            for name, training in self.document["methods"].items()
            if (training["encoding"] != "lossless") is encoded
        ]

    def failures(self) -> list[Training]:
        """Give the trainings that ended before their last round."""
        return [run for run in self._all if run.failure]


def write_report(folder: Path) -> None:
    """Draw the plots, and put the tables into noniid.md between their marks, leaving the rest as it is."""
    trainings = Trainings(json.loads((folder / "noniid.json").read_text(encoding="utf-8")))
    draw_curves(trainings, folder / "noniid-curves.png")
    draw_steadiness(trainings, folder / "noniid-steadiness.png")
    draw_encodings(trainings, folder / "noniid-encodings.png")
    page = folder / "noniid.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# Non-IID data\n\n{BEGIN}\n{END}\n"
    unfinished = page.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_text(insert_tables(text, tabulate(trainings)), encoding="utf-8")
    unfinished.replace(page)


def insert_tables(page: str, tables: str) -> str:
    """Put the tables between their marks; raises ValueError when the page has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"noniid.md wants the lines {BEGIN} and {END}: the tables go between them")
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}"


# -- Tables ----------------------------------------------------------------------------------------------------------


def tabulate(trainings: Trainings) -> str:
    """Write all tables in Markdown."""
    document = trainings.document
    conditions = (
        f"{document['train_samples']:,} training samples, {document['sites']} sites, "
        f"{document['measured_samples']:,} test samples, seeds {', '.join(map(str, document['seeds']))}; "
        f"each training sees {document['batches']} batches of about {BATCH} samples."
    )
    parts = [
        conditions,
        *_section(
            "Final macro-F1",
            "Of the model a run ends with; mean ± standard deviation over seeds.",
            _by_split(trainings, lambda runs: spread([run.final("macro_f1") for run in runs], 3)),
        ),
    ]
    for level in LEVELS:
        parts += _section(
            f"What it takes to reach macro-F1 {level:.2f}",
            "Rounds / megabytes of all sites, both ways / thousand samples; means over the seeds that got there.",
            _by_split(trainings, partial(_cost, level=level)),
        )
    parts += [
        *_section(
            "Steadiness",
            "How many points of accuracy the parameters of the moment (not their running average, which is what a "
            f"run ends with) lose from one measurement to the next, {BATCH * document['local_steps']:,} samples later: "
            "mean over all measurements, a gain counting as 0; in brackets the largest loss.",
            _by_split(trainings, _steadiness),
        ),
        *_section(
            "Steadiness late",
            "The same over the second half of each training alone.",
            _by_split(trainings, partial(_steadiness, half=True)),
        ),
        *_section(
            "Bytes for a thousand samples",
            "Kilobytes of all sites, up / down.",
            _by_split(trainings, _bytes_per_thousand),
        ),
        *_section("Upload encodings", "Gradient averaging, by category.", _encodings(trainings)),
    ]
    if failures := trainings.failures():
        parts += _section(
            "Trainings that ended early",
            "Their numbers ran away, and the aggregator refused them. Above they are counted, but are in no mean.",
            "\n".join(map(_tell_failure, failures)),
        )
    return "\n\n".join(parts)


def _section(title: str, note: str, table: str) -> list[str]:
    return [f"### {title}", note, table]


def _by_split(trainings: Trainings, tell: Callable[[list[Training]], str]) -> str:
    rows = []
    for method in trainings.methods():
        cells = []
        for split in SPLITS:
            runs, failed = trainings.of(method, split), trainings.failed(method, split)
            cells.append("; ".join(filter(None, [tell(runs) if runs else "", failed])) or "–")
        rows.append([method, *cells])
    return markdown_table(["", *SPLITS.values()], rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose first column names the row."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Write mean ± standard deviation; of a single value that alone."""
    told = f"{mean(values):.{digits}f}"
    return f"{told} ± {stdev(values):.{digits}f}" if len(values) > 1 else told


def _cost(runs: Sequence[Training], level: float) -> str:
    points = [(run, point) for run in runs if (point := run.reached(level)) is not None]
    if not points:
        return "not reached"

    def average(column: str) -> float:
        return mean(float(run.column(column)[point]) for run, point in points)

    megabytes = "–" if runs[0].method == "central" else f"{average('megabytes'):,.0f}"
    told = f"{average('round'):.0f} / {megabytes} / {average('samples') / 1000:.1f}"
    return told if len(points) == len(runs) else f"{told} ({len(points)} of {len(runs)} seeds)"


def _steadiness(runs: Sequence[Training], half: bool = False) -> str:
    falls = [run.falls()[len(run.falls()) // 2 if half else 0 :] for run in runs]
    if not all(map(len, falls)):
        return "–"
    average, most = mean(float(fall.mean()) for fall in falls), max(float(fall.max()) for fall in falls)
    return f"{100 * average:.2f} ({100 * most:.1f})"


def _bytes_per_thousand(runs: Sequence[Training]) -> str:
    if runs[0].method == "central":
        return "–"
    up, down = (
        mean(run.final(name) / run.final("samples") for run in runs) for name in ("bytes_up", "bytes_down")
    )
    return f"{up:,.0f} / {down:,.0f}"  # bytes a sample are kilobytes a thousand


def _encodings(trainings: Trainings) -> str:
    lossless = trainings.of("fedsgd", "category")
    rows = []
    for method in ("fedsgd", *trainings.methods(encoded=True)):
        runs = trainings.of(method, "category")
        if not runs or not lossless:
            continue
        bytes_up = mean(run.final("bytes_up") for run in runs)
        against = bytes_up / mean(run.final("bytes_up") for run in lossless)
        differences = [
            run.final("macro_f1") - other.final("macro_f1")
            for run in runs
            for other in lossless
            if run.seed == other.seed
        ]
        rows.append(
            [
                "lossless" if method == "fedsgd" else method.removeprefix("fedsgd "),
                f"{bytes_up / _MEGA:,.1f}",
                f"{100 * against:.0f} %",
                spread([run.final("macro_f1") for run in runs], 3),
                spread([run.final("accuracy") for run in runs], 3),
                "" if method == "fedsgd" else spread(differences, 4),
            ]
        )
    header = ["", "MB up", "of lossless", "macro-F1", "accuracy", "macro-F1 less lossless, by seed"]
    return markdown_table(header, rows)


def _tell_failure(run: Training) -> str:
    after = f"{run.final('round'):.0f}" if run.columns else "0"
    split = SPLITS.get(run.split, run.split)
    return f"- {run.method}, {split}, seed {run.seed}, measured up to round {after}: {run.failure}"


# -- Plots -----------------------------------------------------------------------------------------------------------


def draw_curves(trainings: Trainings, path: Path) -> None:
    """Draw accuracy against rounds, megabytes and samples, one row of plots a split."""
    from matplotlib.figure import Figure

    axes_names = {"round": "round", "megabytes": "megabytes sent, both ways", "samples": "samples seen"}
    figure = Figure(figsize=(13, 3.0 * len(SPLITS)), layout="constrained")
    grid = figure.subplots(len(SPLITS), len(axes_names), sharey=True)
    for row, (split, title) in zip(grid, SPLITS.items(), strict=True):
        for axes, (column, label) in zip(row, axes_names.items(), strict=True):
            _draw_methods(axes, trainings, split, column, "accuracy", trainings.methods())
            axes.set_xlabel(label)
            if column != "samples":
                axes.set_xscale("log")
        row[0].set_ylabel(f"{title}\ntest accuracy")
        _label_ends(row[-1], trainings, split, "accuracy", trainings.methods())
    grid[0, 0].set_ylim(0.5, 0.95)
    figure.suptitle("Test accuracy of the model a run would end with; mean and range over seeds")
    figure.savefig(path, dpi=100)


def draw_steadiness(trainings: Trainings, path: Path) -> None:
    """Draw the accuracy of the parameters of the moment against samples seen, each seed a line."""
    from matplotlib.figure import Figure

    methods = [name for name in trainings.methods() if name != "central"]
    figure = Figure(figsize=(13, 2.2 * len(SPLITS)), layout="constrained")
    grid = figure.subplots(len(SPLITS), len(methods), sharex=True, sharey=True, squeeze=False)
    for row, (split, title) in zip(grid, SPLITS.items(), strict=True):
        for axes, method in zip(row, methods, strict=True):
            for run in trainings.of(method, split):
                axes.plot(run.column("samples"), run.column("raw_accuracy"), color=_COLOURS[method], lw=1)
            axes.grid(alpha=0.25)
        row[0].set_ylabel(f"{title}\naccuracy")
    for axes, method in zip(grid[0], methods, strict=True):
        axes.set_title(method, color=_COLOURS[method])
    for axes in grid[-1]:
        axes.set_xlabel("samples seen")
    figure.suptitle(
        "Accuracy of the parameters of the moment, without averaging them over rounds; a line a seed"
    )
    figure.savefig(path, dpi=100)


def draw_encodings(trainings: Trainings, path: Path) -> None:
    """Draw accuracy against what the sites sent, for each upload encoding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    methods = ["fedsgd", *trainings.methods(encoded=True)]
    _draw_methods(axes, trainings, "category", "bytes_up", "accuracy", methods)
    for method in methods:
        if runs := trainings.of(method, "category"):
            end = mean(run.final("bytes_up") for run in runs), mean(run.final("accuracy") for run in runs)
            told = "lossless" if method == "fedsgd" else method.removeprefix("fedsgd ")
            axes.annotate(
                told, end, xytext=(0, -18), textcoords="offset points", color=_COLOURS[method], ha="center"
            )
    axes.set_xscale("log")
    axes.set(
        xlabel="bytes sent up by all sites", ylabel="test accuracy", title="Gradient averaging by category"
    )
    figure.savefig(path, dpi=100)


def _draw_methods(
    axes: Axes, trainings: Trainings, split: str, x: str, y: str, methods: Sequence[str]
) -> None:
    """Draw each method's mean over seeds with the range between the lowest and the highest."""
    for method in methods:
        runs = trainings.of(method, split)
        if not runs:
            continue
        if method == "central" and x == "megabytes":  # sends nothing: a line at where it ends
            level = mean(run.final(y) for run in runs)
            axes.axhline(level, color=_COLOURS[method], lw=1, ls="--")
            continue
        points = min(len(run.column(y)) for run in runs)
        across = np.mean([run.column(x)[:points] for run in runs], axis=0)
        heights = np.array([run.column(y)[:points] for run in runs])
        style = "--" if method == "central" else "-"
        axes.plot(across, heights.mean(axis=0), style, color=_COLOURS[method], lw=1.5)
        axes.fill_between(
            across, heights.min(axis=0), heights.max(axis=0), color=_COLOURS[method], alpha=0.15, lw=0
        )
    axes.grid(alpha=0.25)


def _label_ends(axes: Axes, trainings: Trainings, split: str, y: str, methods: Sequence[str]) -> None:
    """Name the curves right of where they end, pushed apart where they end close to each other."""
    ends = {
        method: mean(run.final(y) for run in runs)
        for method in methods
        if (runs := trainings.of(method, split))
    }
    ordered = sorted(ends, key=lambda method: -ends[method])
    heights = push_apart([ends[method] for method in ordered], gap=0.048)
    right = axes.dataLim.x1
    for method, height in zip(ordered, heights, strict=True):
        axes.annotate(
            method,
            xy=(right, ends[method]),
            xytext=(right * 1.06, height),
            color=_COLOURS[method],
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _COLOURS[method], "lw": 0.6, "shrinkA": 0, "shrinkB": 0},
        )


def push_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move descending heights downwards until each is at least `gap` below the one before."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else height)
    return placed
