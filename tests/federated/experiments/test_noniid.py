from __future__ import annotations

import csv
import io
import json
import multiprocessing
import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from federated.experiments import noniid, noniid_report
from federated.experiments.noniid import Scale, plan, plan_tuning
from federated.experiments.noniid_report import BEGIN, END, Trainings, insert_tables, push_apart, tabulate
from federated.experiments.noniid_runs import finish_runs, read_result
from federated.experiments.noniid_training import Ground, Run, cut_shards, prepare, train

SMALL = Scale(train_samples=120, measured_samples=40, batches=10, seeds=(1,))
GOOD, BAD = ("很好 喜欢 满意 不错", "很差 失望 退货 难用")
SILENT = Console(quiet=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of four categories whose labels are easy to tell."""
    draw = random.Random(1)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["cat", "label", "review"])
    for number in range(240):
        label = number % 2
        words = draw.choices((GOOD if label else BAD).split(), k=5)
        writer.writerow([f"类{number % 3 + number % 2}", label, f"{''.join(words)}第{number}件"])
    path = tmp_path_factory.mktemp("corpus") / "corpus.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("corpus.csv", table.getvalue())
    return path


@pytest.fixture(scope="module")
def ground(corpus: Path) -> Ground:
    return prepare(corpus, SMALL.train_samples, SMALL.measured_samples)


def runs_of(scale: Scale, *methods: str) -> list[Run]:
    return [run for run in plan(scale) if run.method in methods and run.split in ("pooled", "category")]


def test_finished_trainings_are_not_made_again_and_a_damaged_file_is(ground: Ground, tmp_path: Path) -> None:
    runs = runs_of(SMALL, "central", "fedavg")
    first = finish_runs(runs, ground, tmp_path, SILENT)
    assert [result["settings"]["method"] for result in first] == ["central", "fedavg"]
    kept, damaged = (ground.path(run, tmp_path) for run in runs)
    before = kept.stat().st_mtime_ns
    damaged.write_text(damaged.read_text()[:100])
    again = finish_runs(runs, ground, tmp_path, SILENT)
    assert kept.stat().st_mtime_ns == before
    assert [result["columns"] for result in again] == [result["columns"] for result in first]
    assert json.loads(damaged.read_text())["columns"] == first[1]["columns"]
    assert sorted(tmp_path.iterdir()) == sorted([kept, damaged])


def test_a_result_of_other_settings_is_not_taken(ground: Ground, tmp_path: Path) -> None:
    run = runs_of(SMALL, "fedavg")[0]
    other = replace(run, training=replace(run.training, local_learning_rate=0.1))
    assert ground.path(run, tmp_path) != ground.path(other, tmp_path)
    path = tmp_path / "result.json"
    path.write_text(
        json.dumps({"settings": ground.settings(other), "failure": "", "columns": {"macro_f1": [1]}})
    )
    assert read_result(path, ground.settings(run)) is None
    assert read_result(path, ground.settings(other)) is not None


def test_a_training_that_runs_away_says_so(ground: Ground) -> None:
    run = runs_of(SMALL, "fedavg")[0]
    wild = replace(run, training=replace(run.training, local_learning_rate=1e9))
    result = train(wild, ground, multiprocessing.get_context("spawn").Value("q", 0))
    assert "nan" in result["failure"].lower()


def test_every_method_sees_as_many_samples_and_every_split_all_of_them(ground: Ground) -> None:
    assert {run.batches for run in plan(SMALL)} == {SMALL.batches}
    for split in ("pooled", *noniid_report.SPLITS):
        shards = cut_shards(ground.reviews, split, seed=1)
        assert sum(map(len, shards.values())) == len(ground.reviews)
        assert split != "pooled" or len(shards) == 1


def test_rates_are_chosen_on_the_validation_samples_and_are_of_the_grid() -> None:
    assert {run.measured_on for run in plan_tuning(SMALL)} == {"validation"}
    assert {run.measured_on for run in plan(SMALL)} == {"test"}
    for method, grid in noniid.GRIDS.items():
        chosen = noniid.METHODS[method]
        assert any(all(getattr(chosen, key) == rate for key, rate in rates.items()) for rates in grid), method


# -- The report ------------------------------------------------------------------------------------------------------


def document() -> dict[str, Any]:
    """Two seeds of two methods; the second method's first training is the one that falls and never gets to 0.9."""

    def run(method: str, seed: int, heights: list[float], up: int) -> dict[str, object]:
        points = range(1, len(heights) + 1)
        columns = {
            "round": list(points),
            "samples": [1000 * point for point in points],
            "bytes_up": [up * point for point in points],
            "bytes_down": [up * point for point in points],
            "accuracy": heights,
            "macro_f1": heights,
            "raw_accuracy": heights,
        }
        return {
            "method": method,
            "split": "category",
            "seed": seed,
            "failure": "",
            "seconds": 1.0,
            "columns": columns,
        }

    return {
        "train_samples": 4000,
        "measured_samples": 100,
        "sites": 4,
        "batches": 4,
        "local_steps": 4,
        "seeds": [1, 2],
        "methods": {name: {"encoding": "lossless"} for name in ("fedsgd", "fedavg")}
        | {"fedsgd fp16": {"encoding": "fp16"}},
        "runs": [
            run("fedsgd", 1, [0.5, 0.7, 0.85, 0.92], 4_000_000),
            run("fedsgd", 2, [0.5, 0.7, 0.85, 0.94], 4_000_000),
            run("fedavg", 1, [0.5, 0.8, 0.7, 0.85], 1_000_000),
            run("fedavg", 2, [0.5, 0.8, 0.85, 0.91], 1_000_000),
            run("fedsgd fp16", 1, [0.5, 0.7, 0.85, 0.91], 2_000_000),
            run("fedsgd fp16", 2, [0.5, 0.7, 0.85, 0.93], 2_000_000),
        ],
    }


def row_of(tables: str, title: str, method: str) -> list[str]:
    section = tables.split(f"### {title}\n")[1].split("###")[0]
    line = next(line for line in section.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_tables_say_what_the_results_say() -> None:
    tables = tabulate(Trainings(document()))
    assert row_of(tables, "Final macro-F1", "fedsgd") == ["–", "–", "–", "0.930 ± 0.014"]
    assert row_of(tables, "What it takes to reach macro-F1 0.80", "fedsgd")[-1] == "3 / 24 / 3.0"
    assert row_of(tables, "What it takes to reach macro-F1 0.80", "fedavg")[-1] == "2 / 4 / 2.0"
    assert (
        row_of(tables, "What it takes to reach macro-F1 0.90", "fedavg")[-1] == "4 / 8 / 4.0 (1 of 2 seeds)"
    )
    assert row_of(tables, "Steadiness", "fedsgd")[-1] == "0.00 (0.0)"
    assert row_of(tables, "Steadiness", "fedavg")[-1] == "1.67 (10.0)"
    assert row_of(tables, "Bytes for a thousand samples", "fedavg")[-1] == "1,000 / 1,000"
    assert row_of(tables, "Upload encodings", "fp16")[:3] == ["8.0", "50 %", "0.920 ± 0.014"]
    assert row_of(tables, "Upload encodings", "fp16")[-1] == "-0.0100 ± 0.0000"


def test_a_training_that_ended_early_is_counted_and_is_in_no_mean() -> None:
    told = document()
    told["runs"][3]["failure"] = "site a: bias holds NaN"
    tables = tabulate(Trainings(told))
    assert row_of(tables, "Final macro-F1", "fedavg")[-1] == "0.850; 1 of 2 failed"
    assert "fedavg, by category, seed 2, measured up to round 4: site a: bias holds NaN" in tables


def test_writing_the_tables_again_keeps_what_stands_around_them(tmp_path: Path) -> None:
    (tmp_path / "noniid.json").write_text(json.dumps(document()))
    page = tmp_path / "noniid.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nWhat was seen.\n", encoding="utf-8")
    noniid_report.write_report(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith("What was seen.\n")
    assert "old" not in text
    assert "0.930 ± 0.014" in text
    noniid_report.write_report(tmp_path)
    assert page.read_text(encoding="utf-8") == text
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="the tables go between them"):
        insert_tables("nothing", "tables")


def test_labels_that_would_cover_each_other_are_pushed_apart() -> None:
    assert push_apart([0.9, 0.89, 0.5], gap=0.05) == pytest.approx([0.9, 0.85, 0.5])


# -- The command -----------------------------------------------------------------------------------------------------


def test_the_command_trains_reports_and_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noniid, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(noniid, "QUICK", SMALL)
    monkeypatch.setattr(noniid, "METHODS", {name: noniid.METHODS[name] for name in ("central", "scaffold")})
    assert noniid.main(["--quick", "--corpus", str(corpus)]) == 0
    page = (tmp_path / "results" / "quick" / "noniid.md").read_text(encoding="utf-8")
    assert "| scaffold |" in page
    capsys.readouterr()
    assert noniid.main(["--quick", "--corpus", str(corpus)]) == 0
    assert "7 of 7 trainings are finished already" in capsys.readouterr().err
    assert noniid.main(["--quick", "--report"]) == 0


def test_without_the_corpus_the_command_says_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert noniid.main(["--corpus", str(tmp_path / "none.zip")]) == 2
    told = capsys.readouterr().err
    assert "none.zip" in told
    assert "CORPUS=path" in told


def test_a_report_without_results_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noniid, "DOCS", tmp_path)
    assert noniid.main(["--report"]) == 2
    assert "run the experiment first" in " ".join(capsys.readouterr().err.split())
