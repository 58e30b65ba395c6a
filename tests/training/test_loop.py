"""The loop with everything real: processes that train, a service that follows the pointer, and then the way back."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import transaction
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from blog_site.comments.inference import close_clients
from blog_site.comments.services import delete_comment
from blog_site.labels.models import Sample
from blog_site.labels.services import correct_labels
from blog_site.training import federation
from blog_site.training.gate import judge_candidate
from blog_site.training.models import ModelVersion, Rollout, Run
from blog_site.training.rollout import advance_rollout, rollback_model
from blog_site.training.services import advance_everything, advance_run, start_run
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.servers import find_free_port, wait_until
from tests.training.doors import answering_model, real_service
from tests.training.rows import SITES, import_opinions, text_of_split

# The tests read facts only, but pytest-django makes a database for those alone that say that they use it.
pytestmark = pytest.mark.django_db

ROUNDS = 6
RUN_SECONDS = 150  # two busy cores start four Pythons that import torch


@dataclass(frozen=True)
class RunFacts:
    """What was seen of a run when it had ended."""

    run: Run
    version: ModelVersion
    rollout: Rollout
    rounds: list[int]
    shards: dict[str, str]  # site → digest of its training shard
    shard_files: set[Path]  # everything that this run was the first to write
    answering: str  # the model that the service answered with afterwards
    processes: list[int]  # those that did not end
    page: str
    pictures: dict[str, str]  # name → content type


@dataclass(frozen=True)
class Loop:
    secret: str  # the text of a comment that was deleted between the runs
    first: RunFacts
    second: RunFacts
    secret_samples: int  # samples of that text after the deletion
    rollout: Rollout
    champion: ModelVersion
    retired: ModelVersion
    answering: str
    pointer: str | None
    idle_beat_changed: bool


def follow(run: Run) -> Run:
    deadline = time.monotonic() + RUN_SECONDS
    while not (run := advance_run(run)).has_ended():
        assert time.monotonic() < deadline, f"{run.state} after {RUN_SECONDS} s"
        time.sleep(0.2)
    return run


def remaining_processes(run: Run, runs: Path) -> list[int]:
    """The run's processes that still live, once they have had a moment to say good-bye."""
    deadline = time.monotonic() + 20
    while (living := living_processes(run, runs)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return living


def living_processes(run: Run, runs: Path) -> list[int]:
    work_dir = str(runs / run.key())
    shards = [part.shard_digest for part in run.sites.all()]
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        ours = work_dir in words or (
            "federated.trainer" in words and any(digest in words for digest in shards)
        )
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def train_once(root: Path, url: str, browser: Client, known: set[Path]) -> RunFacts:
    run = follow(start_run(trigger="command", rounds=ROUNDS, min_labels=1))
    assert run.model_version is not None, run.state_reason
    names = ("curves.png", "confusion.png", "classes.png", "sites.png", "report.json")
    files = {name: browser.get(reverse("admin:training_run_file", args=[run.pk, name])) for name in names}
    assert all(answer.getvalue() for answer in files.values())  # reading it to the end closes the file
    return RunFacts(
        run=run,
        version=ModelVersion.objects.select_related("parent").get(pk=run.model_version_id),
        rollout=Rollout.objects.get(actor=f"run:{run.pk}"),
        rounds=list(run.rounds.values_list("number", flat=True)),
        shards=dict(run.sites.values_list("site__slug", "shard_digest")),
        shard_files=set((root / "store" / "shards").iterdir()) - known,
        answering=answering_model(url),
        processes=remaining_processes(run, root / "runs"),
        page=browser.get(reverse("admin:training_run_change", args=[run.pk])).content.decode(),
        pictures={name: answer["Content-Type"] for name, answer in files.items()},
    )


def go_round(root: Path, url: str) -> Loop:
    import_opinions(450)
    secret = text_of_split("这条评论后来被作者删除了", "train")
    comment = make_comment(secret, article=make_article(category=make_category("food")))
    moderator = make_user("moderator-loop", is_staff=True, is_superuser=True)
    correct_labels(comments=[comment], sentiment="positive", moderator=moderator)
    browser = Client()
    browser.force_login(moderator)

    first = train_once(root, url, browser, set())
    delete_comment(comment=comment)
    secret_samples = Sample.objects.filter(text=secret).count()
    import_opinions(60, skip=450)
    second = train_once(root, url, browser, first.shard_files)

    rollout = rollback_model(to=None, actor="command")
    wait_until(lambda: advance_rollout(rollout).state != Rollout.State.WAITING, "the service has gone back")
    before = list(Rollout.objects.values_list("pk", "state", "reason"))
    advance_everything()
    return Loop(
        secret=secret,
        first=first,
        second=second,
        secret_samples=secret_samples,
        rollout=rollout,
        champion=ModelVersion.objects.get(digest=first.version.digest),
        retired=ModelVersion.objects.get(digest=second.version.digest),
        answering=answering_model(url),
        pointer=federation.artifact_store().champion(),
        idle_beat_changed=before != list(Rollout.objects.values_list("pk", "state", "reason")),
    )


@pytest.fixture(scope="module")
def loop(django_db_setup, django_db_blocker, tmp_path_factory) -> Loop:
    """Go round once for all tests of this file; the rows are rolled back at once, the facts stay."""
    root = tmp_path_factory.mktemp("loop")
    port = find_free_port()
    ours = override_settings(
        ARTIFACT_STORE_URL=(root / "store").as_uri(),
        TRAINING_RUNS_DIR=root / "runs",
        INFERENCE_URL=f"http://127.0.0.1:{port}",
        ROLLOUT_DEADLINE_SECONDS=60,
        GATE_MAX_MACRO_F1_DROP=0.01,
    )
    with ExitStack() as stack:
        stack.enter_context(ours)
        stack.callback(close_clients)
        stack.enter_context(django_db_blocker.unblock())
        url = stack.enter_context(real_service((root / "store").as_uri(), port, root / "serve.log"))
        stack.enter_context(transaction.atomic())
        try:
            loop = go_round(root, url)
        finally:
            for run in Run.objects.all():
                federation.launcher().stop(run.key())
            transaction.set_rollback(True)
    return loop


def test_the_first_run_ends_with_a_champion_that_answers(loop: Loop) -> None:
    facts = loop.first

    assert facts.run.state == Run.State.PROMOTED, facts.run.state_reason
    assert facts.version.state == ModelVersion.State.CHAMPION
    assert facts.version.parent is None
    assert facts.rollout.state == Rollout.State.DONE
    assert facts.answering == facts.version.digest


def test_every_round_and_every_site_is_on_record(loop: Loop) -> None:
    for facts in (loop.first, loop.second):
        assert facts.rounds == list(range(1, ROUNDS + 1))
        assert set(facts.shards) == set(SITES)
        assert facts.run.missing_sites == []
        assert facts.run.active_slot is None
        assert facts.run.ended_at is not None
        assert timezone.now() - facts.run.ended_at < timedelta(hours=1)


def test_a_finished_run_leaves_no_process(loop: Loop) -> None:
    assert loop.first.processes == []
    assert loop.second.processes == []


def test_the_registered_figures_are_those_of_the_report(loop: Loop) -> None:
    for facts in (loop.first, loop.second):
        report = facts.run.report
        assert report is not None
        assert facts.version.digest == report["artifact"]
        assert facts.version.metrics == report["candidate_evaluation"]
        assert facts.version.size_bytes == report["size_bytes"] > 10_000
        assert report["heldout_samples"] == report["candidate_evaluation"]["samples"] > 20


def test_the_retraining_goes_on_from_the_champion_and_is_judged_by_the_report(loop: Loop) -> None:
    report: dict[str, Any] | None = loop.second.run.report
    assert report is not None
    drop = report["champion_evaluation"]["macro_f1"] - report["candidate_evaluation"]["macro_f1"]

    assert report["champion"] == loop.first.version.digest
    assert loop.second.version.parent == loop.first.version
    assert judge_candidate(report, max_macro_f1_drop=0.01).passed is (drop <= 0.01)
    # These texts are easy: six rounds more only help, so the verdict is a promotion.
    assert drop <= 0.01
    assert loop.second.run.state == Run.State.PROMOTED
    assert loop.second.answering == loop.second.version.digest != loop.first.version.digest


def test_rolling_back_puts_the_previous_model_into_service(loop: Loop) -> None:
    assert loop.rollout.state == Rollout.State.DONE
    assert loop.answering == loop.pointer == loop.first.version.digest
    assert loop.champion.state == ModelVersion.State.CHAMPION
    assert loop.retired.state == ModelVersion.State.RETIRED
    assert not loop.idle_beat_changed


def test_a_deleted_comment_is_in_no_later_shard(loop: Loop) -> None:
    def holding(files: set[Path]) -> list[Path]:
        return [file for file in files if loop.secret in file.read_text(encoding="utf-8")]

    assert [file.stem for file in holding(loop.first.shard_files)] == [loop.first.shards["food"]]
    assert loop.secret_samples == 0
    assert loop.second.shards["food"] != loop.first.shards["food"]
    assert len(loop.second.shard_files) >= len(SITES)
    assert holding(loop.second.shard_files) == []


def test_the_runs_page_shows_the_report_with_its_pictures(loop: Loop) -> None:
    for facts in (loop.first, loop.second):
        assert facts.run.report is not None
        assert f"{facts.run.report['candidate_evaluation']['macro_f1']:.4f}" in facts.page
        assert facts.page.count("<polyline") == 4
        assert set(facts.pictures) == {
            "curves.png",
            "confusion.png",
            "classes.png",
            "sites.png",
            "report.json",
        }
        assert facts.pictures["curves.png"] == "image/png"
        assert facts.pictures["report.json"] == "application/json"
