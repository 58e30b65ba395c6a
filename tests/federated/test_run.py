"""Whole runs, from shards to a model: that they learn, that they repeat, and that they go on from one another."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from federated.compare import compare, read_ground, train_by_sites
from federated.protocol import SiteSpec
from ml.artifact import load_artifact
from ml.predict import Predictor
from ml.tokenizer import TokenizerSettings
from ml.training_config import FIRST_TRAINING, RETRAINING
from tests.federated.conftest import SITES, TRAIN_SAMPLES, FinishedRun, RunGround, write_reviews

CHANCE = 1 / 3


def test_a_run_learns_what_its_sites_know(finished: FinishedRun) -> None:
    rounds = finished.status.rounds
    assert [record.number for record in rounds] == list(range(1, 31))
    assert rounds[-1].loss < rounds[0].loss / 2
    assert rounds[-1].accuracy > 0.9
    assert all(set(record.sites) == set(SITES) for record in rounds)
    assert finished.status.missing_sites == ()
    # The last round measures the sites' own validation samples.
    assert rounds[-1].validation_accuracy is not None
    assert rounds[-1].validation_accuracy > 0.9


def test_each_round_takes_every_site_by_its_share(finished: FinishedRun) -> None:
    for record in finished.status.rounds:
        assert {site: values["samples"] for site, values in record.sites.items()} == TRAIN_SAMPLES


def test_the_model_answers_for_texts_that_no_site_has_shown(finished: FinishedRun) -> None:
    artifact = load_artifact(finished.ground.store.artifact(finished.digest), finished.digest)
    praise, blame = Predictor(artifact).predict(["山里的民宿真的很好啊", "山里的民宿实在太差啊"])
    assert (praise.label, blame.label) == ("positive", "negative")


def test_a_model_that_was_trained_on_characters_is_served_on_characters(ground: RunGround) -> None:
    status = ground.finish(ground.spec("run-1", rounds=2, tokenizer={"kind": "characters"}))
    assert status.result is not None
    artifact = load_artifact(ground.store.artifact(status.result["artifact"]), status.result["artifact"])
    assert artifact.tokenizer == TokenizerSettings("characters")
    assert max(map(len, artifact.vocabulary.tokens[2:])) == 1
    assert len(Predictor(artifact).encode(["山里的民宿"]).token_ids) == 5


def test_when_a_run_is_done_its_processes_have_ended(finished: FinishedRun) -> None:
    assert finished.status.phase == "done"
    finished.ground.launcher.stop(finished.spec.run)  # nothing is left to stop
    assert not finished.ground.processes(finished.spec.run)
    for site in SITES:
        assert "the run is done; this site answered 30 rounds" in finished.ground.log("run-1", site)
    assert "Traceback" not in finished.ground.logs("run-1")


def test_the_same_specification_gives_the_same_artifact_bit_for_bit(
    ground: RunGround, finished: FinishedRun
) -> None:
    spec = ground.spec("run-2")
    status = ground.finish(spec)
    assert status.result is not None
    assert spec.sites == finished.spec.sites
    assert status.result["artifact"] == finished.digest
    for twin, record in zip(status.rounds, finished.status.rounds, strict=True):
        assert (twin.loss, twin.accuracy, twin.sites) == (record.loss, record.accuracy, record.sites)


def test_a_second_run_goes_on_from_the_champion(ground: RunGround, finished: FinishedRun) -> None:
    store = ground.store
    shutil.copytree(finished.ground.store.artifact(finished.digest), store.artifact(finished.digest))
    spec = ground.spec("run-2", champion_digest=finished.digest, rounds=3)
    fresh = [{**row, "text": row["text"] + "，配螺蛳粉"} for row in write_reviews("food", "", 60)]
    food = SiteSpec(store.put_shard(fresh), len(fresh), spec.sites["food"].validation_digest, 12)
    status = ground.finish(replace(spec, sites={**spec.sites, "food": food}))
    assert status.result is not None

    champion = load_artifact(store.artifact(finished.digest), finished.digest)
    candidate = load_artifact(store.artifact(status.result["artifact"]), status.result["artifact"])
    known, extended = champion.vocabulary.tokens, candidate.vocabulary.tokens
    assert extended[: len(known)] == known  # a token keeps its row of the embedding
    assert {"配", "螺蛳", "粉"} <= set(extended[len(known) :])
    assert candidate.weights["embedding.weight"].shape[0] == len(extended)

    # It begins with what the champion knows: a first run's first round is a guess.
    assert finished.status.rounds[0].accuracy < CHANCE + 0.3
    assert status.rounds[0].accuracy > CHANCE + 0.4
    assert status.rounds[0].sites["travel"]["accuracy"] > 0.9  # whose texts are those of the first run
    report = status.result["report"]
    assert report["champion"] == finished.digest
    assert report["champion_evaluation"]["accuracy"] > 0.9
    assert report["training"] == RETRAINING.with_rounds(3).to_json()


def test_central_training_on_the_pooled_shards_ends_where_the_run_did(finished: FinishedRun) -> None:
    figures = compare(finished.ground.root / "runs" / "run-1", Console(quiet=True), seeds=2)
    assert figures["rounds"] == 30
    assert figures["federated_samples_drawn"] == figures["central_samples_drawn"] == 30 * 144
    assert figures["difference"] == pytest.approx(0, abs=0.1)
    assert [seed["seed"] for seed in figures["seeds"]] == [FIRST_TRAINING.seed, FIRST_TRAINING.seed + 1]
    assert finished.status.result is not None
    own = finished.status.result["report"]["candidate_evaluation"]["macro_f1"]
    assert figures["seeds"][0]["federated"] == own


def test_training_site_by_site_in_one_process_is_what_the_run_did(finished: FinishedRun) -> None:
    """So that the comparison's further seeds say something about runs."""
    assert finished.status.result is not None
    spec = replace(finished.spec, store_url=finished.ground.store.root.as_uri())
    ground = read_ground(spec, finished.status.result["report"])
    model = train_by_sites(ground, lambda: None)
    artifact = load_artifact(finished.ground.store.artifact(finished.digest), finished.digest)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value.numpy(), artifact.weights[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "training",
    [
        {"strategy": "fedavg", "local_steps": 2},
        {"strategy": "fedopt", "encoding": "fp16"},
        {"strategy": "scaffold", "encoding": "topk"},
    ],
    ids=["fedavg", "fedopt in half precision", "scaffold of the largest numbers"],
)
def test_a_run_of_another_strategy_goes_to_its_end_as_simulated(
    ground: RunGround, training: dict[str, Any]
) -> None:
    spec = ground.spec(rounds=5, training=training)
    ground.start(spec)
    status = ground.wait(spec.run, lambda status: status.phase == "done", "the run's end")
    assert status.result is not None
    simulated = train_by_sites(read_ground(spec, status.result["report"]), lambda: None)
    digest = status.result["artifact"]
    weights = load_artifact(ground.store.artifact(digest), digest).weights
    for name, value in simulated.state_dict().items():
        # fedopt's AdamW divides by the gradient's size, which magnifies rounding.
        np.testing.assert_allclose(value.numpy(), weights[name], atol=2e-3, err_msg=name)


def test_a_run_without_a_result_cannot_be_compared(ground: RunGround) -> None:
    run_dir = ground.root / "runs" / "run-1"
    run_dir.mkdir(parents=True)
    (run_dir / "run.json").write_text(ground.spec().to_json(), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"not a finished first training \(phase starting\)"):
        compare(run_dir, Console(quiet=True))


def test_a_first_run_trains_as_configured(finished: FinishedRun) -> None:
    assert finished.status.result is not None
    report = finished.status.result["report"]
    assert report["training"] == FIRST_TRAINING.with_rounds(30).to_json()
    assert report["champion"] is None
    assert report["champion_evaluation"] is None
