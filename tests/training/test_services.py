from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from blog_site.articles.models import Category
from blog_site.comments.services import delete_comment
from blog_site.labels.models import Sample
from blog_site.labels.services import ImportedSample, correct_labels, import_samples
from blog_site.training import services
from blog_site.training.checks import check_launcher
from blog_site.training.models import ModelVersion, Rollout, Round, Run, RunSite, Site
from blog_site.training.rollout import promote_model, rollback_model
from blog_site.training.services import (
    RunActive,
    TooFewLabels,
    TrainingError,
    abort_run,
    advance_everything,
    advance_run,
    count_new_samples,
    plan_run,
    resume_run,
    start_run,
    sync_sites,
)
from federated.protocol import Refusal, RunStatus
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.training.concurrency import in_threads
from tests.training.doors import SayingService, ScriptedLauncher, make_rounds, make_script
from tests.training.rows import (
    SITES,
    import_opinions,
    make_artifact,
    make_digest,
    make_report,
    make_run,
    make_sites,
    make_version,
    text_of_split,
)

pytestmark = pytest.mark.django_db


def import_counted(slug: str, **splits: int) -> None:
    """Samples of one site, so many of each split; every third one negative."""
    make_sites((slug,))
    for split, amount in splits.items():
        texts = [text_of_split(f"{slug} 的第 {number} 条，", split) for number in range(amount)]
        import_samples(
            examples=[
                ImportedSample(text, "negative" if index % 3 == 0 else "positive", slug)
                for index, text in enumerate(texts)
            ]
        )


def finish(run: Run) -> Run:
    """Advance until the run has ended; in vain is a failure, not a hang."""
    for _ in range(20):
        run = advance_run(run)
        if run.has_ended():
            return run
    raise AssertionError(f"still {run.state}")


# -- Sites and plans -----------------------------------------------------------------------------------------------


def test_every_category_becomes_a_site_once() -> None:
    make_sites()
    sync_sites()
    sync_sites()

    assert list(Site.objects.values_list("slug", flat=True)) == list(SITES)


def test_a_site_taken_out_of_training_stays_out() -> None:
    import_opinions(90)
    sync_sites()
    Site.objects.filter(slug="film").update(active=False)

    plan = plan_run()

    assert {site.slug for site in plan.sites} == {"books", "food"}
    assert Site.objects.get(slug="film").active is False


def test_a_plan_counts_splits_and_classes_per_site() -> None:
    import_counted("food", train=9, validation=2, test=3)
    import_counted("film", train=4, validation=1, test=1)

    plan = plan_run(rounds=7)
    food, film = plan.sites

    assert (food.slug, food.train, food.validation, food.test) == ("food", 9, 2, 3)
    assert food.class_counts == {"negative": 3, "positive": 6}
    assert (film.slug, film.train, film.validation, film.test) == ("film", 4, 1, 1)
    assert (plan.train_samples, plan.heldout_samples, plan.new_samples) == (13, 4, 20)
    assert (plan.champion, plan.rounds) == (None, 7)


def test_a_plan_takes_the_sites_with_most_training_samples() -> None:
    import_counted("books", train=2, test=1)
    import_counted("film", train=5, test=1)
    import_counted("food", train=3, test=1)

    assert [site.slug for site in plan_run(sites=2).sites] == ["film", "food"]
    assert [site.slug for site in plan_run(sites=9).sites] == ["film", "food", "books"]


def test_a_site_without_training_samples_is_not_planned() -> None:
    import_counted("food", train=3, test=1)
    import_counted("film", test=5)

    assert [site.slug for site in plan_run().sites] == ["food"]


def test_a_sample_of_no_known_site_is_not_counted() -> None:
    import_counted("food", train=3, test=1)
    import_samples(examples=[ImportedSample("没有归属的一条", "positive", "nowhere")])

    assert plan_run().new_samples == 4


@pytest.mark.parametrize(
    ("state", "new"),
    [(Run.State.PROMOTED, 2), (Run.State.REFUSED, 2), (Run.State.FAILED, 10)],
)
def test_new_samples_count_from_the_last_run_that_reached_the_gate(state: str, new: int) -> None:
    import_counted("food", train=8)
    sync_sites()
    make_run(state=state, samples_until=timezone.now(), trained="food")
    import_counted("food", validation=1, test=1)

    assert count_new_samples() == new


def test_a_relabelled_comment_counts_as_new() -> None:
    comment = make_comment("味道真好")
    moderator = make_user()
    correct_labels(comments=[comment], sentiment="positive", moderator=moderator)
    sync_sites()
    make_run(state=Run.State.PROMOTED, trained="food")
    assert count_new_samples() == 0

    correct_labels(comments=[comment], sentiment="positive", moderator=moderator)
    assert count_new_samples() == 0, "the same word again teaches nothing new"
    correct_labels(comments=[comment], sentiment="negative", moderator=moderator)
    assert count_new_samples() == 1


# -- Starting ------------------------------------------------------------------------------------------------------


def test_a_run_starts_with_what_was_planned() -> None:
    import_opinions(120)
    champion = make_version(make_digest(), champion=True)

    run = start_run(trigger="command", rounds=5, sites=2, min_labels=1)

    assert (run.state, run.rounds_planned, run.champion) == (Run.State.CUTTING, 5, champion)
    assert run.new_samples == 120
    assert run.sites.count() == 2
    assert Run.objects.active() == run


def test_without_samples_no_run_starts_even_by_force() -> None:
    make_sites()

    with pytest.raises(TooFewLabels, match="import_samples"):
        start_run(trigger="command", force=True)
    assert not Run.objects.exists()


def test_with_nothing_held_out_no_run_starts() -> None:
    import_counted("food", train=5, validation=2)

    with pytest.raises(TooFewLabels):
        start_run(trigger="command", force=True)


def test_too_few_new_labels_say_how_many_are_missing(settings) -> None:
    settings.TRAINING_MIN_LABELS = 50
    import_counted("food", train=9, test=3)

    with pytest.raises(TooFewLabels, match=r"12 条新样本，少于 50 条"):
        start_run(trigger="beat")
    with pytest.raises(TooFewLabels, match="少于 13 条"):
        start_run(trigger="beat", min_labels=13)
    assert start_run(trigger="beat", min_labels=12).trigger == "beat"


def test_force_trains_without_new_samples(settings) -> None:
    settings.TRAINING_MIN_LABELS = 50
    import_counted("food", train=9, test=3)

    assert start_run(trigger="command", force=True).new_samples == 12


def test_a_strategy_goes_with_the_run_to_its_launcher() -> None:
    import_counted("food", train=9, test=3)
    run = start_run(trigger="command", min_labels=1, training={"strategy": "fedavg", "local_steps": 2})
    run.refresh_from_db()
    assert services.make_spec(run).training == {"strategy": "fedavg", "local_steps": 2}


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"strategy": "fedprox"}, "strategy is 'fedprox'"),
        ({"epochs": 3}, "epochs"),
        ({"local_steps": 0}, "local_steps"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_there_is_a_run(training, words: str) -> None:
    import_counted("food", train=9, test=3)
    with pytest.raises(TrainingError, match=words):
        start_run(trigger="command", min_labels=1, training=training)
    assert not Run.objects.exists()


def test_while_a_run_is_active_none_starts_even_by_force() -> None:
    import_counted("food", train=9, test=3)
    active = start_run(trigger="command", min_labels=1)

    with pytest.raises(RunActive, match=f"#{active.pk}"):
        start_run(trigger="command", force=True)


def test_the_database_itself_holds_one_active_run() -> None:
    make_run()

    with pytest.raises(IntegrityError), transaction.atomic():
        make_run()
    make_run(state=Run.State.FAILED)
    make_run(state=Run.State.PROMOTED)


@pytest.mark.django_db(transaction=True)
def test_of_several_starts_at_once_one_wins(monkeypatch) -> None:
    import_counted("food", train=9, test=3)
    # Every thread sees no active run and plans; only then may any of them write.
    planned = threading.Barrier(4)

    def plan_and_wait(**options: Any) -> services.RunPlan:
        plan = plan_run(**options)
        planned.wait(timeout=30)
        return plan

    monkeypatch.setattr(services, "plan_run", plan_and_wait)

    outcomes = in_threads(lambda: start_run(trigger="command", min_labels=1), 4)

    assert sum(isinstance(outcome, Run) for outcome in outcomes) == 1, outcomes
    assert sum(isinstance(outcome, RunActive) for outcome in outcomes) == 3, outcomes
    assert Run.objects.count() == 1
    assert RunSite.objects.count() == 1


# -- Cutting -------------------------------------------------------------------------------------------------------


def test_a_shard_holds_one_sites_samples_and_the_test_split_is_held_out(store, launcher) -> None:
    import_opinions(300)
    run = advance_run(start_run(trigger="command", min_labels=1))

    assert run.state == Run.State.TRAINING
    for part in run.sites.select_related("site"):
        own = Sample.objects.filter(site=part.site.slug, split="train")
        lines = store.shard(part.shard_digest).read_text(encoding="utf-8").splitlines()
        assert len(lines) == part.samples == own.count()
        assert all(
            text in lines[index]
            for index, text in enumerate(own.order_by("pk").values_list("text", flat=True))
        )
    heldout = store.shard(run.heldout_digest).read_text(encoding="utf-8").splitlines()
    assert len(heldout) == Sample.objects.filter(split="test").count() > 0


def test_a_sample_stands_in_a_training_shard_as_often_as_it_weighs_and_is_held_out_once(
    store, launcher
) -> None:
    import_counted("food", train=5, test=2)
    taught, asked = (text_of_split("审核员看过，", split) for split in ("train", "test"))
    weighed = [ImportedSample(text, "neutral", "food", weight=4) for text in (taught, asked)]
    import_samples(examples=weighed)
    planned = plan_run().sites[0]

    run = advance_run(start_run(trigger="command", min_labels=1))

    part = run.sites.get()
    shard = [json.loads(line) for line in store.shard(part.shard_digest).read_bytes().splitlines()]
    assert Counter(row["text"] for row in shard)[taught] == 4
    assert (part.samples, part.class_counts["neutral"]) == (planned.train, 4) == (len(shard), 4)
    heldout = [json.loads(line) for line in store.shard(run.heldout_digest).read_bytes().splitlines()]
    assert [row["text"] for row in heldout].count(asked) == 1
    assert len(heldout) == planned.test == 3


def test_samples_changed_after_the_start_belong_to_the_next_run(store, launcher) -> None:
    import_counted("food", train=5, test=2)
    run = start_run(trigger="command", min_labels=1)
    import_counted("food", validation=3)
    late = text_of_split("开始之后才有的一条", "train")
    import_samples(examples=[ImportedSample(late, "positive", "food")])

    run = advance_run(run)
    part = run.sites.get()

    assert (part.samples, part.validation_samples) == (5, 0)
    assert late not in store.shard(part.shard_digest).read_text(encoding="utf-8")


def test_a_deleted_comment_is_in_no_later_shard(store, launcher) -> None:
    import_counted("food", train=5, test=2)
    secret = text_of_split("请忘掉我说过的话", "train")
    comment = make_comment(secret, article=make_article(category=make_category("food")))
    correct_labels(comments=[comment], sentiment="negative", moderator=make_user())
    first = advance_run(start_run(trigger="command", min_labels=1))
    before = first.sites.get().shard_digest
    assert secret in store.shard(before).read_text(encoding="utf-8")
    abort_run(run=first, reason="for the test")

    delete_comment(comment=comment)
    second = advance_run(start_run(trigger="command", force=True))

    after = second.sites.get()
    assert after.samples == 5
    assert secret not in store.shard(after.shard_digest).read_text(encoding="utf-8")


def test_a_comment_deleted_between_start_and_cut_is_not_cut(store, launcher) -> None:
    import_counted("food", train=5, test=2)
    secret = text_of_split("马上就删", "train")
    comment = make_comment(secret, article=make_article(category=make_category("food")))
    correct_labels(comments=[comment], sentiment="negative", moderator=make_user())
    run = start_run(trigger="command", min_labels=1)

    delete_comment(comment=comment)
    run = advance_run(run)

    assert run.sites.get().samples == 5
    assert not any(secret in file.read_text(encoding="utf-8") for file in (store.root / "shards").iterdir())


def test_a_site_whose_samples_are_gone_by_the_cut_is_left_out(launcher) -> None:
    import_counted("food", train=5, test=2)
    import_counted("film", train=2)
    run = start_run(trigger="command", min_labels=1)

    Sample.objects.filter(site="film").delete()
    run = advance_run(advance_run(run))

    assert list(launcher.started[0].sites) == ["food"]
    assert run.state == Run.State.TRAINING


def test_a_run_whose_samples_are_all_gone_by_the_cut_fails_and_says_so(launcher) -> None:
    import_counted("food", train=5, test=2)
    run = start_run(trigger="command", min_labels=1)

    Sample.objects.all().delete()
    run = advance_run(run)

    assert (run.state, run.active_slot) == (Run.State.FAILED, None)
    assert "删除" in run.state_reason
    assert launcher.started == []


# -- Following -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(store, launcher: ScriptedLauncher, service: SayingService) -> str:
    """Samples to train on, a launcher that will succeed, a service that follows; gives the candidate's digest."""
    import_counted("food", train=9, validation=1, test=3)
    digest = make_artifact(store.root)
    launcher.script = make_script({"artifact": digest, "report": make_report(digest)})
    service.serve(digest)
    return digest


def test_a_run_goes_from_state_to_state_to_its_promotion(
    ready: str, launcher: ScriptedLauncher, store
) -> None:
    run = start_run(trigger="command", min_labels=1)
    states = [run.state]
    while not run.has_ended():
        run = advance_run(run)
        if run.state != states[-1]:
            states.append(run.state)
        assert len(states) < 10

    assert states == ["cutting", "training", "evaluating", "registered", "promoted"]
    assert ModelVersion.objects.champion() == run.model_version
    assert run.model_version is not None
    assert run.model_version.digest == ready == store.champion()
    assert (run.rounds_planned, run.rounds.count(), run.active_slot) == (3, 3, None)
    assert len(launcher.started) == 1


def test_the_processes_are_told_what_the_run_has_cut(
    ready: str, launcher: ScriptedLauncher, settings
) -> None:
    champion = make_version(make_digest(), champion=True)
    run = start_run(trigger="command", rounds=5, min_labels=1)
    run = advance_run(advance_run(run))

    (spec,) = launcher.started
    part = run.sites.get()
    assert (spec.run, spec.rounds, spec.champion_digest) == (run.key(), 5, champion.digest)
    assert (spec.heldout_digest, spec.store_url) == (run.heldout_digest, settings.ARTIFACT_STORE_URL)
    assert (spec.sites["food"].shard_digest, spec.sites["food"].samples) == (part.shard_digest, 9)
    assert spec.sites["food"].validation_samples == 1


def test_rounds_are_recorded_as_they_come_and_once(ready: str, launcher: ScriptedLauncher) -> None:
    records = make_rounds(5)
    launcher.script = [
        RunStatus("training", rounds_planned=5, rounds=records[:2]),
        RunStatus("training", rounds_planned=5, rounds=records[:2]),
        RunStatus("training", rounds_planned=5, rounds=records[:4], missing_sites=("film",)),
    ]
    run = start_run(trigger="command", min_labels=1)
    counts = []
    for _ in range(6):
        run = advance_run(run)
        counts.append(run.rounds.count())

    assert counts == [0, 0, 2, 2, 4, 4]
    assert (run.rounds_planned, run.missing_sites) == (5, ["film"])
    assert Round.objects.get(run=run, number=2).loss == pytest.approx(0.5)


def test_what_the_aggregator_refused_is_kept_with_the_run_as_last_told(ready, launcher) -> None:
    wrong_token = Refusal("", "192.0.2.7", 0, 401, "no site has this token", 1_790_000_000.0)
    more_of_them = replace(wrong_token, count=4096)
    script = make_script({"artifact": ready, "report": make_report(ready)})
    launcher.script = [
        replace(script[0], refusals=(wrong_token,)),
        *(replace(status, refusals=(more_of_them,)) for status in script[1:]),
    ]
    run = advance_run(advance_run(advance_run(start_run(trigger="command", min_labels=1))))
    assert run.refusals == [asdict(wrong_token)]
    run = finish(run)
    assert run.refusals == [asdict(more_of_them)]


def test_a_candidate_that_the_gate_refuses_leaves_the_champion_in_place(ready, launcher, store) -> None:
    old = make_version(make_artifact(store.root), macro_f1=0.95, champion=True)
    launcher.script = make_script({"artifact": ready, "report": make_report(ready, 0.80, champion=old)})

    run = finish(start_run(trigger="command", min_labels=1))

    assert run.state == Run.State.REFUSED
    assert "下降 0.1500" in run.state_reason
    assert run.model_version is not None
    assert (run.model_version.state, run.model_version.parent) == (ModelVersion.State.REFUSED, old)
    assert run.model_version.state_reason == run.state_reason
    assert ModelVersion.objects.champion() == old
    assert not Rollout.objects.exists()


def test_a_run_that_gives_the_champion_again_is_refused_and_the_champion_stays(
    ready, launcher, store
) -> None:
    old = make_version(ready, champion=True)
    report = make_report(ready, champion=old)
    launcher.script = make_script({"artifact": ready, "report": report})

    run = finish(start_run(trigger="command", min_labels=1))

    old.refresh_from_db()
    assert run.state == Run.State.REFUSED
    assert (old.state, old.champion_slot) == (ModelVersion.State.CHAMPION, 1)


def test_a_run_that_has_ended_is_not_moved_any_more(ready: str, launcher: ScriptedLauncher) -> None:
    run = make_run(state=Run.State.FAILED, state_reason="earlier")

    assert advance_run(run).state_reason == "earlier"
    assert abort_run(run=run, reason="too late").state_reason == "earlier"
    assert launcher.stopped == []


def test_one_beat_moves_the_active_run_and_restores_a_lost_pointer(ready: str, store, service) -> None:
    run = start_run(trigger="command", min_labels=1)
    for _ in range(8):
        advance_everything()
    run.refresh_from_db()
    assert run.state == Run.State.PROMOTED

    (store.root / "champion.json").unlink()
    advance_everything()

    assert store.champion() == ready


@pytest.mark.django_db(transaction=True)
def test_several_workers_advancing_one_run_do_no_harm(ready: str, launcher: ScriptedLauncher) -> None:
    run = start_run(trigger="command", min_labels=1)

    def work_it_off() -> Run:
        return finish(Run.objects.get(pk=run.pk))

    outcomes = in_threads(work_it_off, 4)

    assert all(isinstance(outcome, Run) for outcome in outcomes), outcomes
    assert {outcome.state for outcome in outcomes} == {Run.State.PROMOTED}
    assert len(launcher.started) == 1
    assert list(Round.objects.values_list("number", flat=True)) == [1, 2, 3]
    assert ModelVersion.objects.get().digest == ready
    assert Rollout.objects.get().actor == f"run:{run.pk}"


# -- Failing -------------------------------------------------------------------------------------------------------


def test_a_run_whose_processes_fail_says_why_and_frees_the_slot(
    ready: str, launcher: ScriptedLauncher
) -> None:
    launcher.script = [RunStatus("failed", "2 of 3 sites did not answer round 4", rounds=make_rounds(3))]

    run = finish(start_run(trigger="command", min_labels=1))

    assert (run.state, run.state_reason) == (Run.State.FAILED, "2 of 3 sites did not answer round 4")
    assert (run.active_slot, run.model_version) == (None, None)
    assert run.rounds.count() == 3, "what it had done stays on record"
    assert launcher.stopped == [run.key()]
    assert start_run(trigger="command", min_labels=1).state == Run.State.CUTTING


def test_a_store_that_cannot_be_written_fails_the_run_and_names_the_folder(store, launcher) -> None:
    import_counted("food", train=9, test=3)
    store.root.parent.mkdir(exist_ok=True)
    store.root.write_text("a file where the store should be")

    run = finish(start_run(trigger="command", min_labels=1))

    assert run.state == Run.State.FAILED
    assert str(store.root) in run.state_reason
    assert Run.objects.active() is None


def test_a_store_address_that_is_none_fails_the_run_and_quotes_it(settings, launcher) -> None:
    import_counted("food", train=9, test=3)
    settings.ARTIFACT_STORE_URL = "ftp://elsewhere/store"

    run = finish(start_run(trigger="command", min_labels=1))

    assert run.state == Run.State.FAILED
    assert "ftp://elsewhere/store" in run.state_reason


def test_a_runs_folder_that_cannot_be_written_fails_the_run(settings, tmp_path) -> None:
    import_counted("food", train=9, test=3)
    settings.TRAINING_RUNS_DIR = tmp_path / "runs"
    settings.TRAINING_RUNS_DIR.write_text("a file where the folder should be")

    run = finish(start_run(trigger="command", min_labels=1))

    assert run.state == Run.State.FAILED
    assert "runs" in run.state_reason


def test_an_overdue_run_is_stopped(settings, ready: str, launcher: ScriptedLauncher) -> None:
    settings.TRAINING_RUN_DEADLINE_SECONDS = 100
    launcher.script = [RunStatus("training", rounds_planned=3)]
    run = start_run(trigger="command", min_labels=1)
    run = advance_run(advance_run(run))
    Run.objects.filter(pk=run.pk).update(started_at=timezone.now() - timedelta(seconds=155))
    run.refresh_from_db()
    assert not advance_run(run).has_ended(), "the processes end by their own deadline first"

    Run.objects.filter(pk=run.pk).update(started_at=timezone.now() - timedelta(seconds=165))
    run.refresh_from_db()
    run = advance_run(run)

    assert run.state == Run.State.FAILED
    assert "100 秒" in run.state_reason
    assert launcher.stopped == [run.key()]


def test_aborting_a_run_stops_its_processes_and_frees_the_slot(
    ready: str, launcher: ScriptedLauncher
) -> None:
    launcher.script = [RunStatus("training", rounds_planned=3)]
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))

    run = abort_run(run=run, reason="由 admin 中止")

    assert (run.state, run.state_reason, run.active_slot) == (Run.State.FAILED, "由 admin 中止", None)
    assert launcher.stopped == [run.key()]
    assert advance_run(run).state == Run.State.FAILED


def test_a_run_aborted_while_its_processes_start_leaves_none(ready: str, launcher: ScriptedLauncher) -> None:
    run = advance_run(start_run(trigger="command", min_labels=1))
    other_worker = Run.objects.get(pk=run.pk)
    launcher.before_start = lambda: abort_run(run=other_worker, reason="just now")

    run = advance_run(run)

    assert run.state == Run.State.FAILED
    assert launcher.started[0].run == run.key()
    assert launcher.stopped == [run.key(), run.key()], "once before they were there, once after"


def test_a_category_without_samples_is_a_site_that_waits() -> None:
    Category.objects.create(slug="empty", name="空")
    import_counted("food", train=3, test=1)

    assert [site.slug for site in plan_run().sites] == ["food"]
    assert Site.objects.filter(slug="empty", active=True).exists()


def test_a_candidate_is_not_put_over_a_champion_it_was_not_compared_with(ready, launcher, store) -> None:
    """Somebody rolls back while a run trains: its candidate was judged against the model that was taken away."""
    good, bad = (
        make_version(make_artifact(store.root), macro_f1=0.95),
        make_version(make_artifact(store.root), macro_f1=0.60),
    )
    promote_model(model_version=good, actor="test")
    promote_model(model_version=bad, actor="test")
    launcher.script = make_script({"artifact": ready, "report": make_report(ready, 0.62, champion=bad)})
    run = start_run(trigger="command", min_labels=1)

    rollback_model(to=good, actor="test")
    run = finish(run)

    assert (run.state, ModelVersion.objects.champion()) == (Run.State.REFUSED, good)
    assert "已被更换" in run.state_reason
    assert run.model_version is not None
    assert run.model_version.state == ModelVersion.State.REFUSED


def long_ago(run: Run, settings) -> Run:
    past = timezone.now() - timedelta(seconds=settings.TRAINING_RUN_DEADLINE_SECONDS + 3600)
    Run.objects.filter(pk=run.pk).update(started_at=past)
    run.refresh_from_db()
    return run


def test_a_run_that_was_done_in_time_counts_however_late_somebody_looks(ready, launcher, settings) -> None:
    launcher.script = launcher.script[-1:]
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))

    run = finish(long_ago(run, settings))

    assert run.state == Run.State.PROMOTED


def test_a_run_that_is_not_done_in_time_fails_and_says_so(launcher, settings) -> None:
    import_counted("food", train=5, test=2)
    launcher.script = [RunStatus("training", rounds_planned=3)]
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))

    run = advance_run(long_ago(run, settings))

    assert run.state == Run.State.FAILED
    assert str(settings.TRAINING_RUN_DEADLINE_SECONDS) in run.state_reason


def test_aborting_a_run_whose_rollout_waits_puts_the_old_champion_back(
    ready, launcher, store, service
) -> None:
    old = make_version(make_artifact(store.root), macro_f1=0.5, champion=True)
    launcher.script = make_script({"artifact": ready, "report": make_report(ready, champion=old)})
    service.serve(old.digest)
    run = start_run(trigger="command", min_labels=1)
    while not Rollout.objects.exists():
        run = advance_run(run)

    run = abort_run(run=run, reason="not this one")
    service.serve(ready)
    advance_everything()

    assert (run.state, run.state_reason) == (Run.State.FAILED, "not this one")
    assert ModelVersion.objects.champion() == old
    assert Rollout.objects.get().state == Rollout.State.FAILED


def test_a_launcher_that_is_not_known_is_said_before_a_run_is_made(settings) -> None:
    settings.TRAINING_LAUNCHER = "kubernets"

    with pytest.raises(TrainingError, match="kubernets"):
        start_run(trigger="command", force=True)

    assert not Run.objects.exists()
    assert [error.id for error in check_launcher(None)] == ["training.E001"]


def test_samples_of_a_site_that_did_not_train_stay_new(ready, launcher) -> None:
    import_counted("film", train=4, test=1)

    run = finish(start_run(trigger="command", sites=1, min_labels=1))

    assert (run.state, run.new_samples) == (Run.State.PROMOTED, 18)
    assert count_new_samples() == 5


def test_processes_that_died_are_started_again_at_every_look(ready, launcher) -> None:
    run = start_run(trigger="command", min_labels=1)
    for _ in range(3):
        run = advance_run(run)
    assert launcher.healed == [run.key()] * 2  # cutting needs no process


def test_a_pause_and_its_reason_stand_on_the_run_until_it_goes_on(ready, launcher) -> None:
    launcher.script = [
        RunStatus("paused", "1 of 3 sites answered", rounds_planned=3),
        RunStatus("training", rounds_planned=3),
    ]
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))
    run = advance_run(run)
    assert (run.state, run.state_reason) == (Run.State.TRAINING, "1 of 3 sites answered")
    assert advance_run(run).state_reason == ""


def test_an_aborted_run_goes_on_to_its_promotion(ready, launcher) -> None:
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))
    run = abort_run(run=run, reason="by mistake")
    assert run.may_resume()

    run = finish(resume_run(run=run))

    assert launcher.resumed == [run.key()]
    assert (run.state, run.active_slot) == (Run.State.PROMOTED, None)
    with pytest.raises(TrainingError, match="不能继续"):
        resume_run(run=run)


def test_a_run_is_not_resumed_beside_another(ready, launcher) -> None:
    first = advance_run(advance_run(start_run(trigger="command", min_labels=1)))
    first = abort_run(run=first, reason="by mistake")
    second = start_run(trigger="command", force=True)

    with pytest.raises(RunActive):
        resume_run(run=first)

    assert Run.objects.active() == second
    assert launcher.resumed == []


def test_a_run_whose_folder_is_gone_is_not_resumed_and_stays_failed(launcher) -> None:
    run = make_run(state=Run.State.FAILED, heldout_digest="a" * 64)

    with pytest.raises(TrainingError, match="was never started"):
        resume_run(run=run)

    run.refresh_from_db()
    assert (run.state, run.active_slot) == (Run.State.FAILED, None)


def test_a_beat_amid_a_resumption_does_not_take_the_run_for_failed(ready, launcher) -> None:
    """Until its processes are started again, the diary says that the run has failed."""
    good = launcher.script
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))
    run = abort_run(run=run, reason="by mistake")
    launcher.script = [RunStatus("failed", "stopped from outside")]

    def beat_then_start() -> None:
        advance_everything()
        launcher.script = good

    launcher.before_resume = beat_then_start
    stopped = len(launcher.stopped)

    assert resume_run(run=run).state == Run.State.TRAINING
    assert len(launcher.stopped) == stopped
    assert finish(run).state == Run.State.PROMOTED
