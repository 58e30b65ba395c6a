"""A run as on a cluster: each process has what a pod has, and its aggregator is moved amid the run.

A real nginx is the store. Each trainer gets its files from addresses that were signed for it, and reaches the
aggregator through a door that leads to whichever is there, as a Service does. Only the cluster is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from federated.aggregator import run_aggregator
from federated.fetch import ADDRESS_VARIABLE
from federated.http_store import HttpStore
from federated.journal import CHECKPOINT, WorkDirTaken, held_work_dir, prune_work_dirs
from federated.presign import presign
from federated.protocol import (
    EXIT_MOVED,
    EXIT_UNREACHABLE,
    TOKEN_VARIABLE,
    TOKENS_VARIABLE,
    ProgressLog,
    RunSpec,
    RunStatus,
    read_progress,
)
from federated.store import MissingFile, shard_path
from ml.artifact import load_artifact
from tests.federated.conftest import SITES, FinishedRun, RunGround
from tests.infra.nginx.servers import BLOG_TOKEN, ROOT, RUN_TOKEN, SIGNING_KEY, Nginx, running_store
from tests.servers import find_free_port

TOKENS = {site: f"token-of-{site}" for site in SITES}
MOVES = 1


class Service:
    """One address that leads to the aggregator, wherever it is; to nobody while there is none."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.target = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _address = self._listener.accept()
                try:
                    pod = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                except OSError:
                    caller.close()
                    continue
                pod.settimeout(None)
                self._open += [caller, pod]
                for one, other in ((caller, pod), (pod, caller)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while part := one.recv(2**16):
                other.sendall(part)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in (self._listener, *self._open):
            end.close()


class Pods:
    """The run's processes, each in a folder of its own, with an environment of its own."""

    def __init__(self, root: Path, store: Nginx, spec: RunSpec, service: Service) -> None:
        self.root, self.store, self.spec, self.service = root, store, spec, service
        self.work_dir = root / "journals" / spec.run
        self.processes: list[subprocess.Popen[bytes]] = []
        (root / "spec.json").write_text(spec.to_json(), encoding="utf-8")

    def start(self, name: str, *module: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def fetch(self, owner: str, digest: str, name: str) -> Path:
        """What a pod's init container does."""
        target = self.root / "data" / owner / name
        address = presign(self.store.url, shard_path(digest), SIGNING_KEY, time.time() + 600)
        fetching = self.start(
            f"fetch-{owner}",
            "federated.fetch",
            "--digest",
            digest,
            "--to",
            str(target),
            **{ADDRESS_VARIABLE: address},
        )
        assert fetching.wait(120) == 0, self.logs()
        return target

    def start_aggregator(self) -> subprocess.Popen[bytes]:
        port = find_free_port()
        command = ["federated.aggregator", "--spec", str(self.root / "spec.json"), "--port", str(port)]
        command += [
            "--work-dir",
            str(self.work_dir),
            "--heldout",
            str(self.root / "data/aggregator/heldout.jsonl"),
        ]
        command += ["--mirror", "--resumable", "--prune-days", "14", "--patience-seconds", "60"]
        environment = {TOKENS_VARIABLE: json.dumps(TOKENS), "ARTIFACT_STORE_URL": self.store.url}
        started = self.start("aggregator", *command, ARTIFACT_STORE_TOKEN=RUN_TOKEN, **environment)
        self.service.target = port
        return started

    def start_trainer(self, site: str) -> subprocess.Popen[bytes]:
        shards = self.spec.sites[site]
        command = ["federated.trainer", "--aggregator", self.service.url, "--site", site]
        command += ["--shard", str(self.fetch(site, shards.shard_digest, "shard.jsonl"))]
        command += ["--validation", str(self.fetch(site, shards.validation_digest, "validation.jsonl"))]
        command += ["--patience-seconds", "180"]
        return self.start(site, *command, **{TOKEN_VARIABLE: TOKENS[site]})

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come\n{self.logs()}"
            time.sleep(0.01)

    def logs(self) -> str:
        return "\n".join(
            f"--- {log.name}\n{log.read_text(encoding='utf-8')[-3000:]}"
            for log in sorted(self.root.glob("*.log"))
        )

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(30)


@contextmanager
def closing(pods: Pods) -> Iterator[Pods]:
    try:
        yield pods
    finally:
        pods.close()
        pods.service.close()


def mirrored_status(store: HttpStore, run: str, tmp_path: Path) -> RunStatus:
    """Where the run stands by what the store says, which is all that the blog sees of it."""
    copy = tmp_path / "seen.jsonl"
    try:
        copy.write_bytes(store.read_run_file(run, "progress.jsonl"))
    except MissingFile:
        return RunStatus("absent")
    return read_progress(copy)


def test_a_run_whose_aggregator_is_moved_ends_as_one_that_nobody_disturbed(
    finished: FinishedRun, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        nginx = stack.enter_context(running_store(tmp_path / "store"))
        store = HttpStore(nginx.url, BLOG_TOKEN)
        for site in finished.spec.sites.values():
            for digest in (site.shard_digest, site.validation_digest):
                lines = finished.ground.store.read_shard(digest).decode().splitlines()
                assert store.put_shard(map(json.loads, lines)) == digest
        lines = finished.ground.store.read_shard(finished.spec.heldout_digest).decode().splitlines()
        assert store.put_shard(map(json.loads, lines)) == finished.spec.heldout_digest
        # With time enough that no site is left out of a round on a busy machine: that would be another run.
        patient = {"round_deadline_seconds": 300, "join_deadline_seconds": 300, "deadline_seconds": 600}
        spec = replace(finished.spec, run="run-7", store_url="http://not-this-one", **patient)
        pods = stack.enter_context(closing(Pods(tmp_path, nginx, spec, Service())))

        # Trainers that are there first wait for the aggregator.
        trainers = {site: pods.start_trainer(site) for site in SITES}
        pods.fetch("aggregator", spec.heldout_digest, "heldout.jsonl")
        aggregator = pods.start_aggregator()
        diary = pods.work_dir / "progress.jsonl"
        for move in range(1, MOVES + 1):
            pods.wait(lambda move=move: len(read_progress(diary).rounds) >= 4 * move, f"round {4 * move}")
            trainers["books"].send_signal(signal.SIGSTOP)  # so that the run does not end before it is moved
            aggregator.send_signal(signal.SIGTERM)
            assert aggregator.wait(60) == EXIT_MOVED, pods.logs()
            assert read_progress(diary).phase == "training"
            trainers["books"].send_signal(signal.SIGCONT)
            aggregator = pods.start_aggregator()  # elsewhere, on the same volume
        assert aggregator.wait(180) == 0, pods.logs()
        for site, trainer in trainers.items():
            assert trainer.wait(60) == 0, pods.logs()
            assert f"token-of-{site}" not in pods.logs()

        status = mirrored_status(store, "run-7", tmp_path)
        assert status == read_progress(diary)
        assert status.phase == "done"
        assert status.result is not None
        assert status.result["artifact"] == finished.digest
        assert [record.number for record in status.rounds] == list(range(1, 31))
        for record, twin in zip(status.rounds, finished.status.rounds, strict=True):
            assert (record.loss, record.accuracy, record.sites) == (twin.loss, twin.accuracy, twin.sites)
        fetched = store.fetch_artifact(finished.digest, tmp_path / "fetched")
        assert load_artifact(fetched, finished.digest).digest == finished.digest
        assert json.loads(store.read_report(finished.digest, "report.json"))["run"] == "run-7"
        assert store.read_report(finished.digest, "curves.png").startswith(b"\x89PNG")

        # A pod that comes once more finds that all is done, and says so to a store that has forgotten.
        store.put_run_file("run-7", "progress.jsonl", b"")
        assert pods.start_aggregator().wait(120) == 0
        assert mirrored_status(store, "run-7", tmp_path).phase == "done"
        assert_each_saw_its_own(nginx, spec)


def assert_each_saw_its_own(nginx: Nginx, spec: RunSpec) -> None:
    """Shards went out by signed addresses alone, each once; what runs with a token read none."""
    lines = [json.loads(line) for line in nginx.log.read_text().splitlines() if line.startswith("{")]
    shards = [line for line in lines if line["path"].startswith("/shards/") and line["method"] == "GET"]
    owned = [digest for site in spec.sites.values() for digest in (site.shard_digest, site.validation_digest)]
    assert sorted(line["path"] for line in shards) == sorted(
        f"/{shard_path(digest)}" for digest in [*owned, spec.heldout_digest]
    )
    assert {line["caller"] for line in shards} == {"signed"}
    assert {line["status"] for line in lines} <= {200, 201, 204, 404}


# -- The aggregator's folder, and a store that is away ---------------------------------------------------------------


def options(work_dir: Path, **changes: object) -> argparse.Namespace:
    usual = {
        "work_dir": work_dir,
        "resumable": True,
        "resume_failed": False,
        "tls_cert": None,
        "heldout": None,
    }
    return argparse.Namespace(**{**usual, "patience_seconds": 0.0, **changes})


@pytest.mark.parametrize(
    ("resumable", "status", "phase"), [(True, EXIT_UNREACHABLE, "starting"), (False, 1, "failed")]
)
def test_a_store_that_is_away_ends_a_run_only_where_nobody_can_go_on(
    ground: RunGround, monkeypatch: pytest.MonkeyPatch, resumable: bool, status: int, phase: str
) -> None:
    monkeypatch.setenv("ARTIFACT_STORE_URL", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setenv(TOKENS_VARIABLE, json.dumps(TOKENS))
    spec = ground.spec(champion_digest="a" * 64)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert run_aggregator(options(ground.root, resumable=resumable), spec, listener) == status
    assert read_progress(ground.root / "progress.jsonl").phase == phase


def test_a_run_that_has_failed_is_gone_on_with_only_when_told_so(
    ground: RunGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACT_STORE_URL", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setenv(TOKENS_VARIABLE, json.dumps(TOKENS))
    ProgressLog(ground.root / "progress.jsonl").write("failed", {"reason": "no quorum"})
    spec = ground.spec(champion_digest="a" * 64)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert run_aggregator(options(ground.root), spec, listener) == 1
        assert read_progress(ground.root / "progress.jsonl").reason == "no quorum"
        again = options(ground.root, resume_failed=True)
        assert run_aggregator(again, spec, listener) == EXIT_UNREACHABLE  # got as far as asking the store
    assert read_progress(ground.root / "progress.jsonl").phase == "starting"


def test_of_two_aggregators_in_one_folder_the_second_waits_for_the_first(tmp_path: Path) -> None:
    second = held_work_dir(tmp_path, 0.3)
    with held_work_dir(tmp_path, 1), pytest.raises(WorkDirTaken, match="another aggregator"), second:
        raise AssertionError("both are in")
    with held_work_dir(tmp_path, 0):
        pass


def test_the_folders_of_runs_long_past_are_removed_and_no_others(tmp_path: Path) -> None:
    month_ago = time.time() - 30 * 86_400
    for name in ("run-1", "run-2", "run-3", "run-4", "lost+found"):
        (tmp_path / name).mkdir()
        for file in (CHECKPOINT, "progress.jsonl") if name != "lost+found" else ("inode",):
            (tmp_path / name / file).write_text("")
            os.utime(tmp_path / name / file, (month_ago, month_ago))
    os.utime(tmp_path / "run-2" / "progress.jsonl")  # somebody wrote there since
    (tmp_path / "a file").write_text("")
    with held_work_dir(tmp_path / "run-3", 0):  # and here somebody works
        prune_work_dirs(tmp_path, tmp_path / "run-4", 14 * 86_400)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a file",
        "lost+found",
        "run-2",
        "run-3",
        "run-4",
    ]
