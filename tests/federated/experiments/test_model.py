"""`make experiment-model` from end to end, on a corpus of a few sentences."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from federated.experiments import model, training
from federated.experiments.baseline import is_installed
from federated.experiments.corpus import by_category, read_corpus
from federated.experiments.model_report import write_report
from federated.experiments.progress import Advance
from federated.store import FolderStore
from ml.artifact import load_artifact
from ml.model_config import ModelConfig
from ml.predict import Predictor
from ml.training_config import TrainingConfig

needs_scikit_learn = pytest.mark.skipif(
    not is_installed(), reason="scikit-learn is not installed: make experiment-model, or make setup-test"
)

CATEGORIES = {
    "书籍": ("这本小说", "作者的文笔", "新版的翻译", "书里的插图", "最后的结局", "封面的印刷"),
    "水果": ("这箱苹果", "进口的橙子", "超市的香蕉", "新疆的葡萄", "冷藏的草莓", "山上的桃子"),
    "酒店": ("大堂的沙发", "房间的窗户", "餐厅的早餐", "前台的服务", "海边的风景", "楼下的泳池"),
}
VERDICTS = {
    "1": ("真的很好", "让人喜欢", "非常满意", "值得推荐"),
    "0": ("实在太差", "让人讨厌", "非常失望", "不值一提"),
}
ENDINGS = ("", "。", "呢", "啊", "！", "哦")
ROUNDS = 20
TINY = model.Extent(
    ModelConfig(vocabulary_size=0, embedding_dim=12, hidden_dim=8, subword_buckets=64, gram_buckets=256),
    TrainingConfig(
        rounds=ROUNDS, global_batch_size=64, learning_rate=2e-2, warmup_rounds=2, averaging_decay=0.9
    ),
    vocabulary_min_count=2,
    timed_calls=20,
)
SAMPLES = len(CATEGORIES) * 6 * 8 * len(ENDINGS)


@dataclass
class Place:
    """Where a test's command reads and writes."""

    root: Path

    @property
    def corpus(self) -> Path:
        return self.root / "corpus.zip"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def run(self, *options: str) -> int:
        places = ["--corpus", self.corpus, "--work", self.work, "--report", self.report]
        return model.main(["--quick", *map(str, places), *options])

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.report / "model.json").read_text(encoding="utf-8"))
        return found


def write_corpus(path: Path) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["cat", "label", "review"])
    for category, subjects in CATEGORIES.items():
        for subject, label, index, ending in itertools.product(subjects, VERDICTS, range(4), ENDINGS):
            rows.writerow([category, label, f"{subject}{VERDICTS[label][index]}{ending}"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("reviews.csv", text.getvalue().encode("utf-8-sig"))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "QUICK", TINY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_corpus(tmp_path / "corpus.zip")
    return Place(tmp_path)


@pytest.fixture
def one_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline without scikit-learn, for tests of what comes after it."""
    scores = {"macro_f1": 0.5, "accuracy": 0.5, "samples": 10}
    made = {"C": 4.0, "validation": scores, "test": scores, "features": 7, "seconds": 0.1}
    monkeypatch.setattr(model, "is_installed", lambda: True)
    monkeypatch.setattr(model, "measure_baseline", lambda corpus, advance: made)


@needs_scikit_learn
def test_the_command_trains_both_ways_compares_and_reports(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("--seeds", "2") == 0
    output = capsys.readouterr().out.splitlines()
    figures = place.figures()
    assert json.loads(output[-1]) == figures
    assert any("linear baseline" in line for line in output[:-1])
    assert figures["quick"] is True
    assert figures["federated_way"] == "simulated"
    assert figures["outdated_stages"] == []
    tenth = SAMPLES // 10
    assert [figures["corpus"][part] for part in ("train", "validation", "test")] == [
        SAMPLES - 2 * tenth,
        tenth,
        tenth,
    ]
    assert set(figures["corpus"]["sites"]) == set(CATEGORIES)
    for name in ("baseline", "federated", "central"):
        for part in ("validation", "test"):
            assert 0.8 < figures[name][part]["macro_f1"] <= 1
            assert 0.8 < figures[name][part]["accuracy"] <= 1
    for name in ("federated", "central"):
        seeds = figures[name]["seeds"]
        assert [one["seed"] for one in seeds] == [20, 21]
        assert [step for step, _ in seeds[0]["curve"]] == list(range(1, ROUNDS + 1))
        assert figures[name]["test"]["macro_f1"] == pytest.approx(
            sum(one["test"]["macro_f1"] for one in seeds) / 2
        )
    assert figures["federated_minus_central"] == pytest.approx(
        figures["federated"]["test"]["macro_f1"] - figures["central"]["test"]["macro_f1"]
    )
    scored = figures["federated"]["seeds"][0]["test"]["by_category"]
    assert set(scored) == set(CATEGORIES)
    assert sum(one["samples"] for one in scored.values()) == tenth
    assert figures["federated"]["seeds"][0]["bytes_up"] > 0
    assert figures["baseline"]["features"] > 100
    assert figures["parameters"] > 1000
    assert figures["network"]["vocabulary_size"] == figures["vocabulary_size"]


@pytest.mark.usefixtures("one_baseline")
def test_the_model_that_is_timed_is_the_one_that_was_trained(place: Place) -> None:
    assert place.run() == 0
    serving = place.figures()["serving"]
    artifact = load_artifact(place.work / "artifacts" / serving["artifact"], serving["artifact"])
    praise, blame = Predictor(artifact).predict(["作者的插图真的很好", "超市的早餐实在太差"])
    assert (praise.label, blame.label) == ("positive", "negative")
    assert 0 < serving["median_ms"] <= serving["p95_ms"] < 1000
    assert serving["calls"] == 20
    assert 0 < serving["onnx_bytes"] < serving["size_bytes"]


@pytest.mark.usefixtures("one_baseline")
def test_a_second_start_repeats_no_finished_stage(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run() == 0
    first = place.figures()

    def repeat(*arguments: object) -> None:
        raise AssertionError("a finished stage is made again")

    for name in ("measure_baseline", "train_pooled", "train_by_simulation", "measure_serving"):
        monkeypatch.setattr(model, name, repeat)
    assert place.run() == 0
    assert place.figures() == first
    assert capsys.readouterr().err.count("finished before") == 4


@pytest.mark.usefixtures("one_baseline")
def test_ctrl_c_loses_the_stage_in_flight_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model, "train_by_simulation", interrupted)
        assert place.run() == model.EXIT_STOPPED
    assert "the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert not place.report.exists()
    monkeypatch.setattr(model, "train_pooled", interrupted)  # finished already
    assert place.run() == 0


@pytest.mark.usefixtures("one_baseline")
def test_other_settings_are_another_training(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.run() == 0
    shorter = replace(TINY, training=TINY.training.with_rounds(5))
    monkeypatch.setattr(model, "QUICK", shorter)
    assert place.run() == 0
    assert place.figures()["federated"]["seeds"][0]["rounds"] == 5


@pytest.mark.usefixtures("one_baseline")
def test_what_other_sources_have_trained_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run() == 0
    monkeypatch.setattr("federated.experiments.stages.sources_digest", lambda patterns: "other")
    assert place.run() == 0
    assert place.figures()["outdated_stages"] == ["baseline", "central", "serving", "simulated"]
    assert "made by other source files" in capsys.readouterr().err


@pytest.mark.usefixtures("one_baseline")
def test_real_processes_train_the_model_that_a_simulation_does_bit_for_bit(place: Place) -> None:
    assert place.run() == 0
    assert place.run("--processes") == 0
    figures = place.figures()
    assert figures["federated_way"] == "processes"
    assert figures["federated"]["seeds"][0]["curve"][-1][0] == ROUNDS - 1
    (simulated,) = place.work.glob("simulated-*.safetensors")
    (real,) = place.work.glob("processes-*.safetensors")
    ours, theirs = load_file(simulated), load_file(real)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert not processes_below(place.root)


@pytest.mark.usefixtures("one_baseline")
def test_a_run_of_processes_that_was_stopped_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow_to_the_fifth_round(launcher: Any, run: str, advance: Advance) -> None:
        while len(launcher.status(run).rounds) < 5:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(
        model, "QUICK", replace(TINY, training=replace(TINY.training, rounds=60, warmup_rounds=2))
    )
    with monkeypatch.context() as patched:
        patched.setattr(training, "follow", follow_to_the_fifth_round)
        assert place.run("--processes") == model.EXIT_STOPPED
    assert not processes_below(place.root)
    assert place.run("--processes") == 0
    (log,) = place.work.glob("processes-*/runs/*/aggregator.log")
    assert "resuming in round" in log.read_text(encoding="utf-8")


def processes_below(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in process.info["cmdline"] or [])
    ]


def test_without_the_corpus_it_says_where_that_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "is_installed", lambda: True)
    assert Place(tmp_path).run() == 2
    error = " ".join(capsys.readouterr().err.split())
    assert str(tmp_path / "corpus.zip") in error
    assert "CORPUS=path" in error


def test_without_scikit_learn_it_names_the_target_that_installs_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert place.run() == 2
    assert "make experiment-model installs it" in " ".join(capsys.readouterr().err.split())
    assert not place.work.exists()


@pytest.mark.usefixtures("one_baseline")
def test_of_the_report_only_what_stands_between_the_markers_is_made_anew(place: Place) -> None:
    assert place.run() == 0
    page = place.report / "model.md"
    text = page.read_text(encoding="utf-8")
    assert "摘要" in text
    assert "| federated, 3 sites |" in text
    assert "| 书籍 (books) |" in text
    page.write_text(text.replace("(To be written.)", "It works."), encoding="utf-8")
    write_report(place.report, {**place.figures(), "federated_minus_baseline": 0.1234, "quick": False})
    again = page.read_text(encoding="utf-8")
    assert "It works." in again
    assert "baseline: +0.1234" in again
    assert again.count("begin: figures") == 1
    assert (place.report / "model.png").read_bytes().startswith(b"\x89PNG")


def test_each_category_of_the_corpus_is_a_site_of_a_run(place: Place, tmp_path: Path) -> None:
    corpus = read_corpus(place.corpus)
    ground = training.prepare_ground(corpus, TINY.network, TINY.training, TINY.vocabulary_limits())
    spec = training.make_run_spec(ground, TINY.training, FolderStore(tmp_path / "store"))
    assert {site: shard.samples for site, shard in spec.sites.items()} == {
        category: len(examples) for category, examples in by_category(corpus.train).items()
    }
    assert sum(site.validation_samples for site in spec.sites.values()) == len(corpus.validation)
