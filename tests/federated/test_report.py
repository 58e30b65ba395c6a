from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from federated.protocol import RoundRecord
from federated.report import draw_curves, evaluate_artifact, read_heldout, smooth
from ml.artifact import load_artifact
from ml.label_set import LABELS
from tests.federated.conftest import SITES, FinishedRun

PICTURES = ("curves.png", "confusion.png", "classes.png", "sites.png")


@pytest.fixture(scope="module")
def report(finished: FinishedRun) -> dict[str, Any]:
    content = (finished.ground.store.report(finished.digest) / "report.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(content)
    return document


def test_the_report_lies_beside_the_artifact_under_its_digest(finished: FinishedRun) -> None:
    folder = finished.ground.store.report(finished.digest)
    assert {path.name for path in folder.iterdir()} == {"report.json", *PICTURES}


def test_the_report_is_what_the_run_concluded_with_and_every_round(
    finished: FinishedRun, report: dict[str, Any]
) -> None:
    assert finished.status.result is not None
    rounds = report.pop("rounds")
    assert report == json.loads(json.dumps(finished.status.result["report"]))
    assert len(rounds) == 30
    assert RoundRecord(**rounds[-1]) == finished.status.rounds[-1]
    report["rounds"] = rounds


def test_the_figures_of_the_report_add_up(finished: FinishedRun, report: dict[str, Any]) -> None:
    assert report["artifact"] == finished.digest
    assert report["train_samples"] == 144
    assert report["heldout_samples"] == 120
    assert report["quantization"] == {
        "served": "fp32",
        "reason": "120 labelled samples are too few to judge 8 bits by: 200 are wanted",
        "samples": 120,
        "figures": None,
    }
    artifact = load_artifact(finished.ground.store.artifact(finished.digest), finished.digest)
    assert report["vocabulary_size"] == len(artifact.vocabulary)
    assert report["parameters"] == sum(value.size for value in artifact.weights.values())
    assert report["size_bytes"] == sum(file.stat().st_size for file in artifact.path.iterdir())
    assert report["seconds"] == pytest.approx(sum(record["seconds"] for record in report["rounds"]))
    # Rows that no site touched stay where they are, both ways.
    whole = 30 * 3 * 4 * report["parameters"]
    assert 0 < report["bytes_up"] < report["bytes_down"] < 0.5 * whole


def test_the_evaluation_is_of_the_held_out_samples_at_every_site(report: dict[str, Any]) -> None:
    evaluation = report["candidate_evaluation"]
    confusion = np.array(evaluation["confusion"])
    assert confusion.sum() == evaluation["samples"] == 120
    assert evaluation["accuracy"] == pytest.approx(confusion.trace() / 120)
    assert {site: values["samples"] for site, values in evaluation["sites"].items()} == dict.fromkeys(
        SITES, 40
    )
    right = sum(values["accuracy"] * values["samples"] for values in evaluation["sites"].values())
    assert right == pytest.approx(confusion.trace())


def test_the_same_artifact_is_scored_the_same_again(finished: FinishedRun, report: dict[str, Any]) -> None:
    store = finished.ground.store
    artifact = load_artifact(store.artifact(finished.digest), finished.digest)
    heldout = read_heldout(store.read_shard(finished.spec.heldout_digest))
    again = evaluate_artifact(artifact, heldout)
    assert json.loads(json.dumps(again)) == report["candidate_evaluation"]
    # With every label turned to one that the model does not give, it is always wrong.
    assert evaluate_artifact(artifact, [{**row, "label": "neutral"} for row in heldout])["accuracy"] < 0.1


def test_nothing_held_out_scores_nothing(finished: FinishedRun) -> None:
    artifact = load_artifact(finished.ground.store.artifact(finished.digest), finished.digest)
    evaluation = evaluate_artifact(artifact, [])
    assert (evaluation["samples"], evaluation["accuracy"], evaluation["sites"]) == (0, 0.0, {})


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_shows_something(finished: FinishedRun, name: str) -> None:
    path = finished.ground.store.report(finished.digest) / name
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    drawn = (pixels != pixels[0]).any(axis=1).mean()  # the first pixel is background
    assert drawn > 0.02
    assert len(np.unique(pixels, axis=0)) > 50


def test_curves_are_drawn_for_one_round_without_validation() -> None:
    record = RoundRecord(1, 1.1, 0.3, 0.1, 10, 10, {"food": {"samples": 4, "loss": 1.1, "accuracy": 0.3}})
    with Image.open(io.BytesIO(draw_curves([record]))) as picture:
        assert picture.format == "PNG"


def test_smoothing_begins_at_the_first_value_and_stays_between_the_extremes() -> None:
    smoothed = smooth([1.0, 0.0, 0.0, 0.0])
    assert smoothed == pytest.approx([1.0, 0.9, 0.81, 0.729])
    assert smooth([]) == []


def test_labels_of_the_confusion_are_all_that_a_model_knows(report: dict[str, Any]) -> None:
    assert list(report["candidate_evaluation"]["per_class"]) == list(LABELS)
    assert np.array(report["candidate_evaluation"]["confusion"]).shape == (len(LABELS), len(LABELS))
