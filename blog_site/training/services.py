"""Starting runs and moving them on, one state at a time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max, Q
from django.utils import timezone

from blog_site.articles.models import Category
from blog_site.labels.models import Sample, SampleQuerySet
from blog_site.training import federation
from blog_site.training.gate import judge_candidate
from blog_site.training.models import ONLY, ModelVersion, Rollout, Round, Run, RunSite, Site
from blog_site.training.releases import tend_deployment
from blog_site.training.rollout import (
    ChampionChanged,
    RolloutRefused,
    advance_rollout,
    promote_model,
    repeat_pointer,
    undo_rollout,
)

log = logging.getLogger(__name__)

PODS_KEPT = 100


class TrainingError(Exception):
    """A run was not started; the text says why and what to do."""


class RunActive(TrainingError):
    pass


class TooFewLabels(TrainingError):
    pass


@dataclass(frozen=True)
class SitePlan:
    slug: str
    name: str
    train: int
    validation: int
    test: int
    class_counts: dict[str, int]  # of the training samples


@dataclass(frozen=True)
class RunPlan:
    """What a run would do; `--dry-run` prints it."""

    sites: tuple[SitePlan, ...]
    new_samples: int
    champion: ModelVersion | None
    rounds: int | None
    samples_until: datetime

    @property
    def train_samples(self) -> int:
        return sum(site.train for site in self.sites)

    @property
    def heldout_samples(self) -> int:
        return sum(site.test for site in self.sites)


# -- Planning and starting -------------------------------------------------------------------------------------


def sync_sites() -> None:
    """Every article category is a site; an administrator may take one out of training in the admin."""
    known = set(Site.objects.values_list("slug", flat=True))
    missing = [Site(slug=c.slug, name=c.name) for c in Category.objects.all() if c.slug not in known]
    Site.objects.bulk_create(missing, ignore_conflicts=True)


def plan_run(*, sites: int | None = None, rounds: int | None = None) -> RunPlan:
    """Count what a run would train on: the active sites with most training samples, at most `sites` of them."""
    sync_sites()
    until = timezone.now()
    counts: dict[str, Counter[tuple[str, str]]] = {}
    rows = Sample.objects.filter(changed_at__lte=until).values_list("site", "split", "label", "weight")
    for site, split, label, weight in rows.iterator(chunk_size=5000):
        counts.setdefault(site, Counter())[split, label] += _copies(split, weight)
    plans = [_plan_site(site, counts.get(site.slug, Counter())) for site in Site.objects.filter(active=True)]
    trainable = sorted((plan for plan in plans if plan.train > 0), key=lambda plan: (-plan.train, plan.slug))
    return RunPlan(
        tuple(trainable[:sites]), count_new_samples(), ModelVersion.objects.champion(), rounds, until
    )


def _plan_site(site: Site, counts: Counter[tuple[str, str]]) -> SitePlan:
    def total(split: str) -> int:
        return sum(count for (in_split, _), count in counts.items() if in_split == split)

    class_counts = {label: count for (split, label), count in sorted(counts.items()) if split == "train"}
    return SitePlan(site.slug, site.name, total("train"), total("validation"), total("test"), class_counts)


def count_new_samples() -> int:
    """Samples made or changed since their site's last run that reached the gate cut its shards."""
    judged = Q(run__state__in=[Run.State.PROMOTED, Run.State.REFUSED])
    seen = dict(
        RunSite.objects.filter(judged).values_list("site__slug").annotate(until=Max("run__samples_until"))
    )
    active = Site.objects.filter(active=True).values_list("slug", flat=True)
    return sum(_samples_after(slug, seen.get(slug)).count() for slug in active)


def _samples_after(site: str, moment: datetime | None) -> SampleQuerySet:
    samples = Sample.objects.of_site(site)
    return samples if moment is None else samples.filter(changed_at__gt=moment)


def start_run(
    *,
    trigger: str,
    sites: int | None = None,
    rounds: int | None = None,
    min_labels: int | None = None,
    force: bool = False,
    training: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
) -> Run:
    """Start a run, or raise RunActive, TooFewLabels or TrainingError.

    `force` trains even without new samples; `training` is what differs from the usual training, e.g. {"strategy":
    "fedavg"}; `tokenizer` one of federation.TOKENIZERS, None for the champion's.
    """
    if problem := federation.launcher_problem():
        raise TrainingError(problem)
    try:
        federation.configure_training(training or {}, first=True, rounds=rounds)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    active = Run.objects.active()
    if active is not None:
        raise RunActive(f"训练 {active} 正在进行（{active.get_state_display()}），等它结束再开始新的一次")
    plan = plan_run(sites=sites, rounds=rounds)
    needed = settings.TRAINING_MIN_LABELS if min_labels is None else min_labels
    if not plan.sites or plan.heldout_samples == 0:
        raise TooFewLabels("没有可训练的样本：先用 manage.py import_samples 导入语料，或等评论得到标注")
    if plan.new_samples < needed and not force:
        raise TooFewLabels(
            f"上次训练以来只有 {plan.new_samples} 条新样本，少于 {needed} 条；可用 --min-labels 或 --force 改变"
        )
    try:
        with transaction.atomic():
            run = Run.objects.create(
                trigger=trigger[:60],
                rounds_planned=rounds,
                training={**(training or {}), **({"tokenizer": tokenizer} if tokenizer else {})},
                new_samples=plan.new_samples,
                champion=plan.champion,
                samples_until=plan.samples_until,
            )
            for site in plan.sites:
                RunSite.objects.create(
                    run=run,
                    site=Site.objects.get(slug=site.slug),
                    samples=site.train,
                    validation_samples=site.validation,
                    class_counts=site.class_counts,
                )
    except IntegrityError as error:  # another process was quicker: the database holds one active run
        raise RunActive("另一次训练刚刚开始，等它结束再开始新的一次") from error
    return run


# -- Moving on ---------------------------------------------------------------------------------------------------


def advance_run(run: Run) -> Run:
    """Move a run one state forward if it is ready to. Never waits; two callers at once do no harm."""
    if run.has_ended():
        return run
    step: dict[str, Callable[[Run], None]] = {
        Run.State.CUTTING: _cut,
        Run.State.TRAINING: _follow,
        Run.State.EVALUATING: _follow,
        Run.State.REGISTERED: _decide,
    }
    try:
        if federation.launcher_in_reach():  # else a worker moves it on: whoever asks sees how far it has come
            step[run.state](run)
    except federation.StoreError as error:
        if error.permanent:
            return end_run(run, Run.State.FAILED, f"存储出错：{error}")
        _wait_for(run, f"制品仓库暂时没有应答，会再试：{error}")
    except federation.LauncherError as error:
        if error.permanent:
            return end_run(run, Run.State.FAILED, f"集群出错：{error}")
        _wait_for(run, f"集群暂时做不到，会再试：{error}")
    except OSError as error:  # the launcher's folder and processes
        return end_run(run, Run.State.FAILED, f"存储出错：{error}")
    run.refresh_from_db()
    # After the look: what was done in time counts, even if nobody looked until now.
    if run.state in (Run.State.CUTTING, Run.State.TRAINING, Run.State.EVALUATING) and is_overdue(run):
        return end_run(run, Run.State.FAILED, f"超过 {settings.TRAINING_RUN_DEADLINE_SECONDS} 秒的期限")
    return run


def _wait_for(run: Run, reason: str) -> None:
    """Say what a run waits for: the next beat tries again, until the run's own time is up."""
    log.warning("%s waits: %s", run.key(), reason)
    # What it says of its end, if it has just ended, must stay.
    Run.objects.filter(pk=run.pk, active_slot__isnull=False).update(state_reason=reason[:500])


def is_overdue(run: Run) -> bool:
    """A minute after the aggregator's own deadline, which says more of what it waited for."""
    return timezone.now() - run.started_at > timedelta(seconds=settings.TRAINING_RUN_DEADLINE_SECONDS + 60)


def _move(run: Run, to: Run.State) -> bool:
    """Change the state if nobody else has; the count of the conditional UPDATE says who did."""
    return Run.objects.filter(pk=run.pk, state=run.state).update(state=to) == 1


def _cut(run: Run) -> None:
    """Write the shards. Digest-named and deterministic, so that doing it twice writes the same files."""
    sites = list(run.sites.values_list("pk", "site__slug"))
    for pk, slug in sites:
        shard, samples = cut_shard(run, [slug], "train")
        validation, validation_samples = cut_shard(run, [slug], "validation")
        part = RunSite.objects.filter(pk=pk)
        if samples == 0:  # every sample was deleted since the run was planned: nothing to train on
            part.delete()
            continue
        part.update(
            shard_digest=shard,
            samples=samples,
            validation_digest=validation,
            validation_samples=validation_samples,
        )
    if not run.sites.exists():
        end_run(run, Run.State.FAILED, "样本在开始训练前都已被删除")
        return
    heldout, _ = cut_shard(run, [slug for _, slug in sites], "test")
    Run.objects.filter(pk=run.pk).update(heldout_digest=heldout)
    _move(run, Run.State.TRAINING)


def cut_shard(run: Run, sites: Sequence[str], split: str) -> tuple[str, int]:
    """Write the sites' samples of one split; returns the file's digest and how many samples it holds.

    To train on, a sample stands there as often as its weight says: to averages and optimizers it is so many samples.
    """
    samples = Sample.objects.filter(site__in=sites, split=split, changed_at__lte=run.samples_until).order_by(
        "pk"
    )
    rows = [
        {"text": text, "label": label, "site": site}
        for text, label, site, weight in samples.values_list("text", "label", "site", "weight")
        for _ in range(_copies(split, weight))
    ]
    return federation.put_shard(rows), len(rows)


def _copies(split: str, weight: int) -> int:
    return weight if split == "train" else 1


def _follow(run: Run) -> None:
    """Take over what the run's processes have done; start them if they were not."""
    launcher = federation.launcher()
    if run.resuming and not _go_on(run, launcher):
        return
    launcher.heal(run.key())
    status = launcher.status(run.key())
    if status.phase == "absent":
        launcher.start(make_spec(run))
        run.refresh_from_db(fields=["state"])
        if run.has_ended():  # aborted meanwhile, when there was nothing to stop yet
            stop_run(run)
        return
    record_progress(run, status)
    if status.phase == "failed":
        end_run(run, Run.State.FAILED, status.reason)
    elif status.phase == "evaluating" and run.state == Run.State.TRAINING:
        _move(run, Run.State.EVALUATING)
    elif status.phase == "done" and status.result is not None:
        register_model(run=run, result=status.result)
        _move(run, Run.State.REGISTERED)


def _go_on(run: Run, launcher: federation.Launcher) -> bool:
    """Let a run go on that somebody wants to; says whether what it was before is out of the way."""
    try:
        ready = launcher.resume(run.key())
    except LookupError as error:
        end_run(run, Run.State.FAILED, f"不能继续：{error}")
        return False
    return ready and Run.objects.filter(pk=run.pk, active_slot=ONLY).update(resuming=False) == 1


def make_spec(run: Run) -> federation.RunSpec:
    sites = {
        part.site.slug: federation.SiteSpec(
            part.shard_digest, part.samples, part.validation_digest, part.validation_samples
        )
        for part in run.sites.select_related("site")
    }
    training = dict(run.training)
    tokenizer = training.pop("tokenizer", None)
    return federation.RunSpec(
        run=run.key(),
        store_url=settings.ARTIFACT_STORE_URL,
        sites=sites,
        heldout_digest=run.heldout_digest,
        champion_digest=run.champion.digest if run.champion else None,
        rounds=run.rounds_planned,
        training=training,
        tokenizer=federation.TOKENIZERS[tokenizer] if tokenizer else {},
        deadline_seconds=settings.TRAINING_RUN_DEADLINE_SECONDS,
        planned_at=run.samples_until.isoformat(),
    )


def record_progress(run: Run, status: federation.RunStatus) -> None:
    known = run.rounds.count()
    fresh = [
        Round(
            run=run,
            number=record.number,
            loss=record.loss,
            accuracy=record.accuracy,
            seconds=record.seconds,
            bytes_up=record.bytes_up,
            bytes_down=record.bytes_down,
            validation_accuracy=record.validation_accuracy,
            sites=dict(record.sites),
        )
        for record in status.rounds[known:]
    ]
    Round.objects.bulk_create(fresh, ignore_conflicts=True)
    # Of an active run only: what one that somebody has just ended says of its end must stay.
    Run.objects.filter(pk=run.pk, active_slot__isnull=False).update(
        rounds_planned=status.rounds_planned or run.rounds_planned,
        missing_sites=list(status.missing_sites),
        refusals=[asdict(refusal) for refusal in status.refusals],
        pods=keep_pods(run.pods or [], [asdict(pod) for pod in status.pods]),
        state_reason="" if status.phase == "failed" else status.reason,  # what it waits for, until it goes on
    )


def keep_pods(known: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods as they were last seen, those that are there first; what is gone is kept, as it may say why."""
    names = {pod["name"] for pod in seen}
    gone = [{**pod, "gone": True} for pod in known if pod["name"] not in names and pod["phase"] != "missing"]
    return [*seen, *gone][:PODS_KEPT]


def register_model(*, run: Run, result: Mapping[str, Any]) -> ModelVersion:
    """Make the run's artifact a model version; the same artifact is the same version."""
    report = result["report"]
    version, _ = ModelVersion.objects.get_or_create(
        digest=result["artifact"],
        defaults={
            "parent": run.champion,
            "metrics": report["candidate_evaluation"],
            "size_bytes": report["size_bytes"],
        },
    )
    if version.let_go_at is not None:  # an old one's weights again, whose files this run has just put back
        version.let_go_at = version.gone_at = None
        version.save(update_fields=["let_go_at", "gone_at"])
    Run.objects.filter(pk=run.pk).update(model_version=version, report=report)
    return version


def _decide(run: Run) -> None:
    """Put the candidate before the gate, then wait for the inference service to follow."""
    assert run.model_version is not None
    assert run.report is not None
    rollout = Rollout.objects.filter(actor=f"run:{run.pk}").first()
    if rollout is None:
        verdict = judge_candidate(run.report, max_macro_f1_drop=settings.GATE_MAX_MACRO_F1_DROP)
        if not verdict.passed:
            _refuse(run, verdict.reason)
            return
        Run.objects.filter(pk=run.pk).update(state_reason=verdict.reason)
        try:
            rollout = promote_model(
                model_version=run.model_version, actor=f"run:{run.pk}", instead_of=run.champion
            )
        except ChampionChanged as error:  # by hand, while this one was trained
            _refuse(run, f"{error}：候选没有和现在的模型比较过，请重新训练")
            return
        except RolloutRefused as error:
            if not Rollout.objects.filter(
                actor=f"run:{run.pk}"
            ).exists():  # else another worker promoted it just now
                end_run(run, Run.State.REFUSED, str(error))
            return
        run.refresh_from_db(fields=["state"])
        if run.has_ended():  # aborted meanwhile, when there was no rollout to undo yet
            undo_rollout(rollout, "训练已中止")
            return
    rollout = advance_rollout(rollout)
    if rollout.state == Rollout.State.FAILED:
        end_run(run, Run.State.REFUSED, rollout.reason)
    elif rollout.state == Rollout.State.DONE or rollout.reason:
        # Done, or the service is away and will load the champion when it starts.
        run.refresh_from_db(fields=["state_reason"])
        end_run(run, Run.State.PROMOTED, "；".join(filter(None, [run.state_reason, rollout.reason])))


def _refuse(run: Run, reason: str) -> None:
    refused = ModelVersion.objects.filter(pk=run.model_version_id, state=ModelVersion.State.CANDIDATE)
    if end_run(run, Run.State.REFUSED, reason).state == Run.State.REFUSED:
        refused.update(state=ModelVersion.State.REFUSED, state_reason=reason[:500])


def end_run(run: Run, state: Run.State, reason: str) -> Run:
    """End a run in the given state, and the processes it may still have."""
    ended = Run.objects.filter(pk=run.pk).exclude(state__in=Run.ENDED)
    if ended.update(state=state, state_reason=reason, active_slot=None, ended_at=timezone.now()):
        log.info("run %s ended: %s %s", run.pk, state, reason)
        stop_run(run)  # also a trainer that a finished run went on without
    run.refresh_from_db()
    return run


def stop_run(run: Run) -> None:
    """End the processes that an ended run may still have; where that is not to be done now, the sweep does it."""
    if not federation.launcher_in_reach():
        return
    try:
        stopped = federation.launcher().stop(run.key())
    except federation.LauncherError as error:
        log.warning("%s is to be stopped, and will be tried again: %s", run.key(), error)
        return
    if stopped:
        Run.objects.unstopped().filter(pk=run.pk).update(stopped_at=timezone.now())


def sweep_runs() -> None:
    """Stop what has been left of runs that have ended, or that nobody knows: a worker may die amid anything."""
    if not federation.launcher_in_reach():
        return
    _stop_ended_runs()
    try:
        _stop_orphans(federation.launcher())
    except federation.LauncherError as error:
        log.warning("what is left of runs cannot be swept now: %s", error)


def _stop_ended_runs() -> None:
    for run in Run.objects.unstopped():
        stop_run(run)


def _stop_orphans(launcher: federation.Launcher) -> None:
    # What is there first, then whom it belongs to: a run that starts between the two is not taken for an orphan.
    left = launcher.runs()
    active = Run.objects.active()
    for name in sorted(left - ({active.key()} if active else set())):
        log.warning("%s has ended or is not known, and something is left of it: stopping it", name)
        launcher.stop(name)


def resume_run(*, run: Run) -> Run:
    """Let a run that failed or was stopped go on where its journal ends. Raises RunActive or TrainingError."""
    if not run.may_resume():
        raise TrainingError(
            f"训练 {run}（{run.get_state_display()}）不能继续：只有切分好数据、还没有产出模型就失败或中止的训练可以"
        )
    if Run.objects.active() is not None:
        raise RunActive("另一次训练正在进行，等它结束再继续")
    # The processes first: a beat that saw the run as training would read in its diary that it has failed.
    ready = _prepare_resuming(run)
    try:
        with transaction.atomic():
            Run.objects.filter(pk=run.pk, state=Run.State.FAILED).update(
                state=Run.State.TRAINING,
                state_reason="",
                active_slot=ONLY,
                ended_at=None,
                stopped_at=None,
                resuming=not ready,
                started_at=timezone.now(),  # its time begins anew
            )
    except IntegrityError as error:  # another run was quicker: the database holds one active run
        stop_run(run)
        raise RunActive("另一次训练正在进行，等它结束再继续") from error
    run.refresh_from_db()
    return run


def _prepare_resuming(run: Run) -> bool:
    """Resume the run's processes if that can be done here and now; else it is left to the next beat."""
    if not federation.launcher_in_reach():
        return False
    try:
        return federation.launcher().resume(run.key())
    except LookupError as error:
        raise TrainingError(f"训练 {run} 不能继续：{error}") from error
    except federation.LauncherError as error:
        if error.permanent:
            raise TrainingError(f"训练 {run} 不能继续：{error}") from error
        return False


def abort_run(*, run: Run, reason: str) -> Run:
    """Stop an active run; what it had learnt is lost, and a rollout that still waits is undone."""
    ended = end_run(run, Run.State.FAILED, reason)
    if ended.state == Run.State.FAILED:
        for rollout in Rollout.objects.filter(actor=f"run:{run.pk}", state=Rollout.State.WAITING):
            undo_rollout(rollout, ended.state_reason)
    return ended


def advance_everything() -> None:
    """One beat: the active run, rollouts that wait for the inference service, and a pointer that was lost."""
    run = Run.objects.active()
    if run is not None:
        advance_run(run)
    if settings.MODEL_ROLLOUT == "image":
        tend_deployment()
    _stop_ended_runs()
    for rollout in Rollout.objects.filter(state=Rollout.State.WAITING).select_related(
        "model_version", "previous"
    ):
        advance_rollout(rollout)
    repeat_pointer()
