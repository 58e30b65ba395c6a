"""Training on a cluster, from the blog's side: a real store, the fake cluster, and once real processes in its pods."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from blog_site.training import federation, services, terminal
from blog_site.training.checks import check_launcher
from blog_site.training.models import Run
from blog_site.training.tasks import advance, sweep
from federated.launch.kubernetes import names
from federated.launch.local import LocalLauncher
from federated.protocol import DIARY, RunStatus, read_progress
from federated.store import FolderStore
from tests.cluster.api_server import ApiServer, write_kubeconfig
from tests.cluster.controllers import Controllers
from tests.cluster.kubelet import Kubelet
from tests.cluster.objects import Object
from tests.infra.nginx.servers import BLOG_TOKEN, RUN_TOKEN, SIGNING_KEY, Nginx, running_store
from tests.training.doors import ScriptedLauncher, make_rounds
from tests.training.rows import import_opinions, make_run

pytestmark = [pytest.mark.django_db, pytest.mark.long]

NAMESPACE = "huisheng-training"
ROUNDS = 40
RUN_SECONDS = 500  # two busy cores start Pythons that import torch, again and again
TRAINING = '{"kind": "phase", "phase": "training", "rounds": 40}\n'


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_store(tmp_path_factory.mktemp("cluster")) as server:
        yield server


@dataclass
class Cluster:
    """The cluster that the settings lead to, and the store that its pods and the blog share."""

    api: ApiServer
    controllers: Controllers
    store: FolderStore  # the folder that nginx serves

    def objects(self) -> list[str]:
        return self.api.objects.names(NAMESPACE)

    def write_diary(self, run: Run, text: str) -> None:
        spec = services.make_spec(run)
        self.store.put_run_file(names.folder_name(spec.run, names.spec_digest(spec)), DIARY, text.encode())

    def aggregator_pod(self, run: Run) -> Object:
        return self.controllers.pod(names.aggregator_name(run.key()))

    def beat(self) -> None:
        """What a worker does when beat says so, and then what the cluster does."""
        advance()
        self.controllers.step()


@pytest.fixture
def cluster(settings, tmp_path: Path, nginx: Nginx, monkeypatch) -> Iterator[Cluster]:
    with ApiServer() as api:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(api.url, tmp_path / "kubeconfig")))
        settings.TRAINING_LAUNCHER = "kubernetes"
        settings.TRAINER_IMAGE = "registry:5000/huisheng-trainer:1"
        settings.ARTIFACT_STORE_URL = nginx.url
        settings.ARTIFACT_STORE_TOKEN = BLOG_TOKEN
        settings.ARTIFACT_STORE_RUN_TOKEN = RUN_TOKEN
        settings.ARTIFACT_STORE_SIGNING_KEY = SIGNING_KEY
        settings.ROLLOUT_DEADLINE_SECONDS = 0
        yield Cluster(api, Controllers(api), FolderStore(nginx.run_dir.parents[1] / "store"))


@pytest.fixture
def run(cluster: Cluster) -> Run:
    """A run whose pods are there, and wait."""
    import_opinions(60)
    started = services.start_run(trigger="test", rounds=ROUNDS, min_labels=1)
    for _ in range(3):
        cluster.beat()
    started.refresh_from_db()
    assert started.state == Run.State.TRAINING, started.state_reason
    assert len(cluster.controllers.pods(names.aggregator_name(started.key()))) == 1
    return started


def as_page(monkeypatch) -> None:
    """Let this process be one that serves pages: nothing in it leads to the API server."""
    monkeypatch.delenv("KUBECONFIG")


def fresh(run: Run) -> Run:
    run.refresh_from_db()
    return run


# -- Whole -----------------------------------------------------------------------------------------------------------


def drive(kubelet: Kubelet, run: Run, disturb: Callable[[RunStatus], None]) -> Run:
    """Let blog and cluster take turns until the run has ended; `disturb` sees its progress as soon as there is any."""
    deadline = time.monotonic() + RUN_SECONDS
    beat = 0.0
    while not fresh(run).has_ended():
        assert time.monotonic() < deadline, f"{run.state}: {run.state_reason}\n{kubelet.logs()}"
        if time.monotonic() > beat:
            advance()
            beat = time.monotonic() + 1
        kubelet.sync()
        for diary in (kubelet.root / "claims" / "journals").glob(f"{run.key()}-*/{DIARY}"):
            disturb(read_progress(diary))
        time.sleep(0.1)
    return run


class Killer:
    """Kills a trainer's pod, and later the aggregator's, amid the rounds: as the kernel, and as `kubectl delete`."""

    def __init__(self, cluster: Cluster, kubelet: Kubelet, run: Run, site: str) -> None:
        self.cluster, self.kubelet, self.run, self.site = cluster, kubelet, run, site
        self.killed: list[str] = []

    def __call__(self, status: RunStatus) -> None:
        done = len(status.rounds)
        trainer = names.trainer_name(self.run.key(), self.site)
        aggregator = names.aggregator_name(self.run.key())
        if not self.killed and 1 <= done < ROUNDS - 4:
            pod = self.cluster.controllers.pod(trainer)
            self.kubelet.kill(pod)
            self.killed.append(pod["metadata"]["name"])
        elif len(self.killed) == 1 and done < ROUNDS:
            replaced = self.cluster.controllers.pods(trainer)[-1]
            if self.kubelet.is_running(replaced, "trainer"):
                pod = self.cluster.controllers.pod(aggregator)
                self.cluster.api.objects.delete("pods", NAMESPACE, pod["metadata"]["name"])
                self.killed.append(pod["metadata"]["name"])


@pytest.mark.once
@pytest.mark.timeout(1100)
def test_a_run_on_a_cluster_survives_its_pods_and_trains_what_one_on_this_machine_does(
    cluster: Cluster, settings, tmp_path: Path
) -> None:
    import_opinions(120)
    settings.AGGREGATOR_CPU, settings.TRAINER_CPU = "2", "1"
    run = services.start_run(trigger="test", rounds=ROUNDS, min_labels=1)
    kubelet = Kubelet(cluster.api, cluster.controllers, tmp_path)
    killer = Killer(cluster, kubelet, run, "film")
    try:
        run = drive(kubelet, run, killer)
        logs = kubelet.logs()
        assert len(killer.killed) == 2, logs
        for _ in range(200):  # until its last pods have ended
            sweep()
            kubelet.sync()
            if fresh(run).stopped_at is not None:
                break
    finally:
        kubelet.close()
    assert run.model_version is not None, f"{run.state_reason}\n{logs}"
    assert list(run.rounds.values_list("number", flat=True)) == list(range(1, ROUNDS + 1))
    assert run.missing_sites == []
    assert "resuming in round" in logs
    assert cluster.objects() == []
    assert fresh(run).stopped_at is not None
    kept = {pod["name"]: pod for pod in run.pods}
    assert kept[killer.killed[0]]["exit_code"] == 137
    assert all(pod["log"] for pod in kept.values() if pod["phase"] == "succeeded")

    spec = replace(services.make_spec(run), store_url=cluster.store.root.as_uri(), run="run-local")
    local = LocalLauncher(tmp_path / "runs", "secret")
    local.start(spec)
    try:
        deadline = time.monotonic() + RUN_SECONDS
        while (status := local.status("run-local")).phase not in ("done", "failed"):
            assert time.monotonic() < deadline, status
            time.sleep(0.2)
    finally:
        local.stop("run-local")
    assert status.result is not None, status.reason
    assert status.result["artifact"] == run.model_version.digest  # bit for bit


# -- Starting and watching -------------------------------------------------------------------------------------------


def test_a_pod_that_cannot_begin_is_named_on_the_runs_page_and_ends_the_run_with_that_reason(
    cluster: Cluster, run: Run, settings, people: dict[str, Client]
) -> None:
    cluster.controllers.hold_pod(cluster.aggregator_pod(run), "ImagePullBackOff", "no such image", init=True)
    cluster.beat()
    assert "ImagePullBackOff: no such image" in fresh(run).state_reason
    assert run.state == Run.State.TRAINING
    address = reverse("admin:training_run_progress", args=[run.pk])
    assert "ImagePullBackOff: no such image" in people["admin"].get(address).content.decode()
    settings.TRAINING_PENDING_SECONDS = -10.0  # that much time has passed
    for _ in range(3):
        cluster.beat()
    assert fresh(run).state == Run.State.FAILED
    assert "ImagePullBackOff: no such image" in run.state_reason
    assert cluster.objects() == []
    assert any("ImagePullBackOff" in pod["reason"] for pod in run.pods)  # kept, though it is gone


def test_pods_that_are_gone_are_kept_beside_those_that_follow_them(cluster: Cluster, run: Run) -> None:
    first = cluster.aggregator_pod(run)
    cluster.controllers.finish_pod(first, exit_code=137, log="amid a round\n", reason="OOMKilled")
    cluster.beat()
    cluster.api.objects.forget("pods", NAMESPACE, first["metadata"]["name"])
    cluster.beat()
    kept = {pod["name"]: pod for pod in fresh(run).pods}
    lost = kept[first["metadata"]["name"]]
    assert (lost["gone"], lost["exit_code"], lost["log"]) == (True, 137, ["amid a round"])
    assert "gone" not in kept[cluster.aggregator_pod(run)["metadata"]["name"]]


def test_progress_is_read_from_the_diary_in_the_store(cluster: Cluster, run: Run) -> None:
    rounds = "".join(json.dumps({"kind": "round", **vars(record)}) + "\n" for record in make_rounds(2))
    cluster.write_diary(run, TRAINING + rounds)
    cluster.beat()
    assert fresh(run).rounds.count() == 2


def test_a_cluster_that_is_away_is_waited_for_until_the_runs_own_time_is_up(
    cluster: Cluster, run: Run
) -> None:
    cluster.api.fail(status=503, reason="ServiceUnavailable", times=1000)
    for _ in range(3):
        cluster.beat()
    assert fresh(run).state == Run.State.TRAINING
    assert "503" in run.state_reason
    cluster.api.mend()
    cluster.beat()
    assert fresh(run).state_reason == ""
    cluster.api.fail(status=503, reason="ServiceUnavailable", times=1000)
    Run.objects.update(started_at=timezone.now() - timedelta(days=1))
    cluster.beat()
    assert fresh(run).state == Run.State.FAILED
    assert run.stopped_at is None
    cluster.api.mend()
    for _ in range(2):
        cluster.beat()
    assert fresh(run).stopped_at is not None
    assert cluster.objects() == []


def test_what_no_time_mends_ends_the_run_at_once_saying_what_to_do(cluster: Cluster, run: Run) -> None:
    cluster.api.allow = []
    cluster.beat()
    assert fresh(run).state == Run.State.FAILED
    assert "needs Role launcher" in run.state_reason


def test_jobs_that_an_operator_deletes_are_made_anew_and_the_run_goes_on(cluster: Cluster, run: Run) -> None:
    cluster.write_diary(run, TRAINING)
    whole = [name for name in cluster.objects() if not name.startswith("pods/")]
    for name in (names.aggregator_name(run.key()), names.trainer_name(run.key(), "film")):
        cluster.api.objects.delete("jobs", NAMESPACE, name, "Background")
        cluster.controllers.step()
        for _ in range(3):
            cluster.beat()
        assert [name for name in cluster.objects() if not name.startswith("pods/")] == whole
    assert fresh(run).state == Run.State.TRAINING


def test_objects_of_another_database_fail_the_run_and_are_named(cluster: Cluster, run: Run) -> None:
    """As after a backup was restored: the next run takes a number that was given before."""
    Run.objects.update(samples_until=timezone.now())
    with pytest.raises(federation.LauncherError, match="was made for another run of that name"):
        federation.launcher().start(services.make_spec(fresh(run)))


# -- Ending ----------------------------------------------------------------------------------------------------------


def test_an_abort_by_a_page_is_carried_out_by_the_next_beat_and_leaves_nothing(
    cluster: Cluster, run: Run, people: dict[str, Client], monkeypatch
) -> None:
    before = cluster.objects()
    with monkeypatch.context() as page:
        as_page(page)
        calls = len(cluster.api.requests)
        people["admin"].post(reverse("admin:training_run_abort", args=[run.pk]))
        assert fresh(run).state == Run.State.FAILED
        assert run.stopped_at is None
        assert (cluster.objects(), len(cluster.api.requests)) == (before, calls)
        shown = people["admin"].get(reverse("admin:training_run_progress", args=[run.pk])).content.decode()
        assert "正在停止它留下的进程" in shown
    cluster.beat()
    cluster.beat()
    assert cluster.objects() == []
    assert fresh(run).stopped_at is not None
    assert run.state_reason == "由 admin-chen 中止"


def test_an_abort_that_the_cluster_does_not_hear_is_tried_again(cluster: Cluster, run: Run) -> None:
    cluster.api.fail(status=500, verb="list", plural="jobs")
    services.abort_run(run=run, reason="enough")
    assert fresh(run).stopped_at is None
    cluster.beat()
    cluster.beat()
    assert fresh(run).stopped_at is not None
    assert cluster.objects() == []


def test_a_run_that_failed_goes_on_by_a_click_on_its_page(
    cluster: Cluster, run: Run, people: dict[str, Client], monkeypatch
) -> None:
    cluster.write_diary(run, TRAINING + '{"kind": "failed", "reason": "1 of 3 sites joined"}\n')
    cluster.beat()
    assert (fresh(run).state, run.state_reason) == (Run.State.FAILED, "1 of 3 sites joined")
    with monkeypatch.context() as page:
        as_page(page)
        people["admin"].post(reverse("admin:training_run_resume", args=[run.pk]))
        assert (fresh(run).state, run.resuming) == (Run.State.TRAINING, True)
    for _ in range(4):
        cluster.beat()
    assert (fresh(run).state, run.resuming, run.state_reason) == (Run.State.TRAINING, False, "")
    job = cluster.api.objects.get("jobs", NAMESPACE, names.aggregator_name(run.key()))
    assert "--resume-failed" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert job["spec"]["suspend"] is False


def test_a_sweep_removes_what_runs_that_have_ended_or_never_were_have_left(
    cluster: Cluster, run: Run
) -> None:
    kept = cluster.objects()
    ended = services.make_spec(run).run.replace(str(run.pk), str(run.pk + 1))
    for plural, name, spec in (
        ("secrets", "run-999-film", {}),
        ("services", "run-999-aggregator", {"spec": {"ports": [{"port": 9000}]}}),
        ("secrets", ended, {}),
    ):
        labels = names.run_labels("-".join(name.split("-")[:2]))
        cluster.api.objects.create(plural, NAMESPACE, {"metadata": {"name": name, "labels": labels}, **spec})
    others = {"metadata": {"name": "somebody-elses", "labels": {names.PART_LABEL: names.PART_OF}}}
    cluster.api.objects.create("secrets", NAMESPACE, others)
    sweep()
    cluster.controllers.step()
    assert cluster.objects() == sorted([*kept, "secrets/somebody-elses"])


def test_a_sweep_that_finds_a_run_which_began_meanwhile_leaves_it_alone(
    cluster: Cluster, run: Run, monkeypatch
) -> None:
    """The cluster is asked first, the database after it."""
    Run.objects.filter(pk=run.pk).update(active_slot=None, stopped_at=timezone.now())
    launcher = federation.launcher()
    looked = launcher.runs

    def look_and_start() -> object:
        found = looked()
        Run.objects.filter(pk=run.pk).update(active_slot=1)
        return found

    monkeypatch.setattr(launcher, "runs", look_and_start)
    monkeypatch.setattr(federation, "launcher", lambda: launcher)
    before = cluster.objects()
    sweep()
    assert cluster.objects() == before


def test_a_sweep_that_the_cluster_does_not_hear_is_left_to_the_next(
    cluster: Cluster, run: Run, caplog
) -> None:
    cluster.api.fail(status=500, verb="list")
    sweep()
    assert "cannot be swept now" in caplog.text


def test_runs_that_ended_before_there_were_clusters_are_not_stopped_again() -> None:
    migration = importlib.import_module("blog_site.training.migrations.0006_run_on_a_cluster")
    old = make_run(state=Run.State.FAILED, active_slot=None, ended_at=timezone.now())
    active = make_run(state=Run.State.TRAINING)
    migration.mark_ended_runs_as_stopped(apps, None)
    assert list(Run.objects.unstopped()) == []
    assert (fresh(old).stopped_at, fresh(active).stopped_at) == (old.ended_at, None)


# -- Processes without a way to the cluster --------------------------------------------------------------------------


def test_a_pages_process_moves_no_run_on_and_asks_nobody(cluster: Cluster, run: Run, monkeypatch) -> None:
    as_page(monkeypatch)
    calls, state = len(cluster.api.requests), run.state
    assert services.advance_run(run).state == state
    services.advance_everything()
    services.sweep_runs()
    assert len(cluster.api.requests) == calls


@pytest.mark.django_db(transaction=True)
def test_trigger_training_in_a_pages_pod_follows_what_the_worker_does(
    monkeypatch, launcher: ScriptedLauncher
) -> None:
    import_opinions(60)
    worker_does = threading.Event()
    monkeypatch.setattr(federation, "launcher_in_reach", lambda: threading.current_thread().name == "worker")
    monkeypatch.setattr(terminal, "LOOK_EVERY_SECONDS", 0.02)
    launcher.script = [RunStatus("failed", "a site was lost")]

    def work() -> None:
        try:
            while not Run.objects.exclude(ended_at=None).exists():
                advance()
                time.sleep(0.02)
        finally:
            worker_does.set()
            connection.close()

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    with pytest.raises(SystemExit) as error:
        call_command(
            "trigger_training", "--wait", "--noinput", "--json", "--min-labels", "1", stdout=StringIO()
        )
    thread.join(20)
    assert error.value.code == 5
    assert Run.objects.get().state_reason == "a site was lost"
    assert worker_does.is_set()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRAINER_IMAGE", "", "needs TRAINER_IMAGE"),
        ("ARTIFACT_STORE_RUN_TOKEN", "", "needs ARTIFACT_STORE_RUN_TOKEN"),
        ("ARTIFACT_STORE_SIGNING_KEY", "", "needs ARTIFACT_STORE_SIGNING_KEY"),
        ("ARTIFACT_STORE_URL", "file:///srv/store", "pods reach a store over HTTP only"),
        ("TRAINER_CPU", "two", "TRAINER_CPU is 'two'"),
        ("AGGREGATOR_MEMORY", "1 GB", "AGGREGATOR_MEMORY is '1 GB'"),
        ("TRAINING_NODE_SELECTOR", {"pool": 1}, "TRAINING_NODE_SELECTOR wants 'pool' to be 1"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named_before_a_run_begins(
    cluster: Cluster, settings, name: str, value: object, said: str
) -> None:
    assert check_launcher(None) == []
    setattr(settings, name, value)
    assert said in check_launcher(None)[0].msg
    with pytest.raises(services.TrainingError, match=said.partition("'")[0]):
        services.start_run(trigger="test")
