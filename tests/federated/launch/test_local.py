"""Runs as real processes: what they may see, and what happens when some of them die."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

import federated.launch.local
from federated.launch.local import LocalLauncher, StartedProcess, beginning_of
from federated.protocol import TOKEN_VARIABLE, TOKENS_VARIABLE, ProgressLog, RunSpec, RunStatus
from federated.store import StoreError
from tests.federated.conftest import SECRET, SITES, FinishedRun, RunGround, in_round

pytestmark = pytest.mark.long
ENDLESS = 100_000  # rounds
ROUND_DEADLINE_SECONDS = 15  # long enough for a first round on a busy machine
SECRETS = {
    "DATABASE_URL": "mysql://blog:database-password@db/blog",
    "SECRET_KEY": "the-key-that-signs-sessions",
    "LABELLER_API_KEY": "the-language-models-key",
    "CELERY_BROKER_URL": "redis://:broker-password@redis/0",
}


# -- A run under way ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunUnderWay:
    ground: RunGround
    spec: RunSpec
    processes: dict[str, psutil.Process]

    def environment(self, name: str) -> dict[str, str]:
        content = Path(f"/proc/{self.processes[name].pid}/environ").read_bytes().decode()
        return dict(variable.split("=", 1) for variable in content.split("\0") if variable)

    def open_files(self, name: str) -> set[str]:
        """Everything the process has open or mapped."""
        process = Path(f"/proc/{self.processes[name].pid}")
        opened = {os.readlink(entry) for entry in (process / "fd").iterdir()}
        return opened | {line.split()[-1] for line in (process / "maps").read_text().splitlines()}

    def tokens(self) -> dict[str, str]:
        tokens: dict[str, str] = json.loads(self.environment("aggregator")[TOKENS_VARIABLE])
        return tokens


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunUnderWay]:
    ground = RunGround(tmp_path_factory.mktemp("under-way"))
    spec = ground.spec(rounds=ENDLESS, round_deadline_seconds=ROUND_DEADLINE_SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        ground.start(spec)
    try:
        ground.wait(spec.run, lambda status: in_round(2, status), "the second round")
        yield RunUnderWay(ground, spec, ground.processes(spec.run))
    finally:
        ground.close()


def test_a_run_is_one_aggregator_and_one_trainer_per_site(under_way: RunUnderWay) -> None:
    assert set(under_way.processes) == {"aggregator", *SITES}
    assert len({process.pid for process in under_way.processes.values()}) == 4


def test_a_trainer_gets_its_own_token_and_no_other(under_way: RunUnderWay) -> None:
    tokens = under_way.tokens()
    assert set(tokens) == set(SITES)
    assert len(set(tokens.values())) == 3
    assert all(len(token) >= 32 for token in tokens.values())
    for site in SITES:
        environment = under_way.environment(site)
        assert environment[TOKEN_VARIABLE] == tokens[site]
        held = "\n".join(environment.values())
        assert [other for other in SITES if tokens[other] in held] == [site]


def test_no_process_of_a_run_inherits_the_blogs_secrets(under_way: RunUnderWay) -> None:
    for name in under_way.processes:
        environment = under_way.environment(name)
        assert not environment.keys() & SECRETS.keys()
        assert not any(secret in value for value in environment.values() for secret in SECRETS.values())


def test_tokens_stand_in_no_command_line_and_in_no_file(under_way: RunUnderWay) -> None:
    tokens = under_way.tokens().values()
    assert SECRET not in "".join(under_way.environment("food").values())
    texts = [" ".join(process.cmdline()) for process in under_way.processes.values()]
    texts += [
        path.read_text(encoding="utf-8", errors="replace")
        for path in under_way.ground.root.rglob("*")
        if path.is_file()
    ]
    assert len(texts) > 8
    assert not any(token in text for token in tokens for text in texts)


def test_a_trainer_is_told_of_its_own_shards_only(under_way: RunUnderWay) -> None:
    for site in SITES:
        mine = under_way.spec.sites[site]
        command = " ".join(under_way.processes[site].cmdline())
        named = set(re.findall(r"[0-9a-f]{64}", command))
        assert named == {mine.shard_digest, mine.validation_digest}
        assert str(under_way.ground.root / "runs") not in command  # nor where the run's specification lies


def test_a_trainer_holds_no_file_of_the_store_open(under_way: RunUnderWay) -> None:
    store = str(under_way.ground.root / "store")
    for site in SITES:
        assert not {path for path in under_way.open_files(site) if path.startswith(store)}


def test_a_trainer_has_one_connection_and_listens_to_nobody(under_way: RunUnderWay) -> None:
    for site in SITES:
        connections = under_way.processes[site].net_connections(kind="all")
        assert {connection.status for connection in connections} <= {psutil.CONN_ESTABLISHED}
        assert len({connection.raddr for connection in connections}) == 1


def test_starting_a_run_again_leaves_it_as_it_is(under_way: RunUnderWay) -> None:
    before = {name: process.pid for name, process in under_way.processes.items()}
    LocalLauncher(under_way.ground.root / "runs", SECRET).start(under_way.spec)  # another worker of the blog
    after = {name: process.pid for name, process in under_way.ground.processes(under_way.spec.run).items()}
    assert after == before
    assert under_way.ground.launcher.status(under_way.spec.run).phase == "training"


# -- Processes that die ------------------------------------------------------------------------------------------


def test_a_killed_trainer_is_named_missing_and_the_run_goes_on_without_it(under_way: RunUnderWay) -> None:
    ground, run = under_way.ground, under_way.spec.run
    ground.kill(run, "travel")
    status = ground.wait(run, lambda status: bool(status.missing_sites), "the loss being noticed")
    noticed = len(status.rounds)
    status = ground.wait(run, lambda status: in_round(noticed + 5, status), "five rounds by quorum")
    assert (status.phase, status.missing_sites) == ("training", ("travel",))
    later = status.rounds[noticed + 1 :]
    assert all(set(record.sites) == {"food", "books"} for record in later)
    # Only the round it died in was waited for.
    assert max(record.seconds for record in later) < ROUND_DEADLINE_SECONDS


def test_without_two_of_three_trainers_the_run_pauses_naming_them_until_they_are_started_again(
    under_way: RunUnderWay,
) -> None:
    """Goes on from the test above, and kills both sites if that one did not run."""
    ground, run = under_way.ground, under_way.spec.run
    for site in {"books", "travel"} & ground.processes(run).keys():
        ground.kill(run, site)
    status = ground.wait(run, lambda status: status.phase == "paused", "the pause")
    assert re.search(r"round \d+: 1 of 3 sites answered within 15 s, 2 are needed", status.reason)
    assert status.reason.endswith("missing: books, travel")
    assert status.missing_sites == ("books", "travel")
    paused_in = len(status.rounds) + 1

    ground.launcher.heal(run)
    status = ground.wait(run, lambda status: in_round(paused_in + 2, status), "the run going on")
    assert (status.phase, status.reason) == ("training", "")
    assert set(ground.processes(run)) == {"aggregator", *SITES}
    status = ground.wait(run, lambda status: not status.missing_sites, "both sites being back")
    assert set(status.rounds[paused_in - 1].sites) >= {"food"}


@pytest.mark.usefixtures("forked")
def test_stopping_ends_every_process_within_ten_seconds_and_may_be_repeated(ground: RunGround) -> None:
    spec = ground.spec(rounds=ENDLESS)
    ground.start(spec)
    ground.wait(spec.run, lambda status: in_round(1, status), "the first round")
    processes = ground.processes(spec.run)
    processes["food"].suspend()  # it will not hear SIGTERM, and must end all the same
    assert ground.launcher.runs() == {spec.run}
    began = time.monotonic()
    assert ground.launcher.stop(spec.run)
    assert time.monotonic() - began < 10
    assert ground.launcher.runs() == set()
    assert set(processes) == {"aggregator", *SITES}
    assert not any(process.is_running() for process in processes.values())
    status = ground.launcher.status(spec.run)
    assert (status.phase, status.reason) == ("failed", "stopped from outside")
    assert len(status.rounds) >= 1
    ground.launcher.stop(spec.run)
    ground.start(spec)  # a run that has ended does not begin again, and does not heal
    ground.launcher.heal(spec.run)
    assert not ground.processes(spec.run)


def test_a_trainer_with_a_broken_shard_ends_with_2_and_the_others_train(ground: RunGround) -> None:
    spec = ground.spec(rounds=ENDLESS, join_deadline_seconds=20)
    broken = ground.store.shard(spec.sites["travel"].shard_digest)
    broken.write_bytes(broken.read_bytes()[:-20])  # cut off amid the last line
    ground.start(spec)
    assert ground.processes(spec.run)["travel"].wait(timeout=60) == 2
    status = ground.wait(spec.run, lambda status: in_round(3, status), "the third round")
    assert status.missing_sites == ("travel",)
    assert {site for record in status.rounds for site in record.sites} == {"food", "books"}
    assert "line 36: not JSON" in ground.log(spec.run, "travel")


@pytest.mark.usefixtures("forked")
def test_a_killed_aggregator_fails_the_run_with_its_last_word(ground: RunGround) -> None:
    spec = ground.spec()
    ground.start(spec)
    ground.wait(
        spec.run, lambda status: "startup complete" in ground.log(spec.run, "aggregator"), "the aggregator"
    )
    ground.kill(spec.run, "aggregator")
    status = ground.launcher.status(spec.run)
    assert status.phase == "failed"
    assert "the aggregator ended without a result" in status.reason
    assert ground.log(spec.run, "aggregator").strip().splitlines()[-1] in status.reason
    assert status.reason.endswith("aggregator.log)")
    ground.launcher.stop(spec.run)
    assert not ground.processes(spec.run)


@pytest.mark.usefixtures("forked")
def test_a_corrupt_champion_fails_the_run_naming_the_file(ground: RunGround, finished: FinishedRun) -> None:
    artifact = ground.store.artifact(finished.digest)
    shutil.copytree(finished.ground.store.artifact(finished.digest), artifact)
    weights = artifact / "weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    spec = ground.spec(champion_digest=finished.digest)
    ground.start(spec)
    status = ground.wait(spec.run, lambda status: status.phase == "failed", "the failure")
    assert f"{weights}: its sha256 is" in status.reason
    assert status.rounds == ()


# -- Without processes -------------------------------------------------------------------------------------------


def record_run_of_the_past(ground: RunGround, pid: int = 999_999_999) -> Path:
    """A run's folder as it is found when its aggregator, started an hour ago, is gone."""
    work_dir = ground.root / "runs" / "run-1"
    work_dir.mkdir(parents=True)
    (work_dir / "run.json").write_text(ground.spec().to_json(), encoding="utf-8")
    aggregator = {"name": "aggregator", "pid": pid, "created": "an hour ago"}
    (work_dir / "processes.json").write_text(json.dumps({"port": 1, "processes": [aggregator]}))
    return work_dir


def test_a_process_is_itself_after_the_clock_was_set(monkeypatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = StartedProcess("aggregator", process.pid, beginning_of(psutil.Process(process.pid)))
        monkeypatch.setattr(
            psutil._pslinux, "boot_time", lambda: time.time() - 5
        )  # what a clock set ahead does
        found = started.find()
        assert found is not None
        assert found.pid == process.pid
        assert replace(started, created=beginning_of(psutil.Process())).find() is None
    finally:
        process.communicate(b"\n")
    assert started.find() is None


def test_a_run_that_never_was_is_absent_and_may_be_stopped(ground: RunGround) -> None:
    assert ground.launcher.status("run-9") == RunStatus("absent")
    ground.launcher.stop("run-9")
    assert ground.launcher.status("run-9") == RunStatus("absent")


def test_a_run_whose_store_has_no_proper_address_is_not_begun(ground: RunGround) -> None:
    spec = ground.spec(store_url="s3://bucket/store")
    with pytest.raises(StoreError, match="s3://bucket/store"):
        ground.launcher.start(spec)
    assert ground.launcher.status(spec.run).phase == "absent"


def test_a_run_whose_starter_died_amid_it_fails_after_a_while(ground: RunGround) -> None:
    work_dir = ground.root / "runs" / "run-1"
    work_dir.mkdir(parents=True)
    (work_dir / "run.json").write_text(ground.spec().to_json(), encoding="utf-8")
    assert ground.launcher.status("run-1").phase == "starting"
    long_ago = time.time() - federated.launch.local.START_SECONDS - 1
    os.utime(work_dir / "run.json", (long_ago, long_ago))
    status = ground.launcher.status("run-1")
    assert status.phase == "failed"
    assert "were not started" in status.reason


def test_a_process_id_that_now_belongs_to_another_is_neither_counted_nor_stopped(ground: RunGround) -> None:
    record_run_of_the_past(ground, pid=os.getpid())
    ground.launcher.stop("run-1")  # would end this test
    assert ground.launcher.status("run-1").phase == "failed"


def test_what_is_known_of_a_lost_run_stays_known(ground: RunGround) -> None:
    work_dir = record_run_of_the_past(ground)
    diary = ProgressLog(work_dir / "progress.jsonl")
    diary.write("phase", {"phase": "training", "rounds": 30})
    diary.write("missing", {"sites": ["travel"], "round": 1})
    status = ground.launcher.status("run-1")
    assert (status.phase, status.rounds_planned, status.missing_sites) == ("failed", 30, ("travel",))
    assert "no log" in status.reason


def test_what_the_aggregator_said_last_stands_even_when_it_is_gone(ground: RunGround) -> None:
    work_dir = record_run_of_the_past(ground)
    ProgressLog(work_dir / "progress.jsonl").write("done", {"artifact": "a" * 64, "report": {}})
    status = ground.launcher.status("run-1")
    assert (status.phase, status.result) == ("done", {"artifact": "a" * 64, "report": {}})


def test_a_start_that_fails_midway_leaves_no_process(ground: RunGround, monkeypatch) -> None:
    """A full disk, or Ctrl-C: what has been started would otherwise wait for ever for the rest."""
    started: list[psutil.Process] = []
    real = federated.launch.local.start_process

    def start(name: str, *arguments: object, **named: object) -> object:
        if len(started) == 3:
            raise OSError(28, "No space left on device")
        process = real(name, *arguments, **named)
        started.append(psutil.Process(process.pid))
        return process

    monkeypatch.setattr(federated.launch.local, "start_process", start)
    spec = ground.spec(rounds=ENDLESS)
    with pytest.raises(OSError, match="No space left"):
        ground.launcher.start(spec)
    assert len(started) == 3
    _gone, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


@pytest.mark.usefixtures("forked")
def test_a_process_that_dies_too_often_is_given_up(ground: RunGround) -> None:
    impatient = LocalLauncher(ground.root / "runs", SECRET, max_restarts=1)
    spec = ground.spec(rounds=ENDLESS, round_deadline_seconds=ROUND_DEADLINE_SECONDS)
    ground.start(spec)
    for _ in range(2):
        ground.wait(spec.run, lambda status: in_round(1, status), "training")
        ground.kill(spec.run, "travel")
        impatient.heal(spec.run)
    assert "travel" not in ground.processes(spec.run)
    assert set(ground.processes(spec.run)) == {"aggregator", "food", "books"}


@pytest.mark.usefixtures("forked")
def test_a_stopped_run_goes_on_where_it_was_and_ends_as_if_nothing_had_happened(
    ground: RunGround, finished: FinishedRun
) -> None:
    spec = ground.spec("run-7")
    ground.start(spec)
    ground.wait(spec.run, lambda status: in_round(8, status), "the eighth round")
    ground.launcher.stop(spec.run)
    before = ground.launcher.status(spec.run)
    assert before.phase == "failed"

    ground.launcher.resume(spec.run)
    resumed = {name: process.pid for name, process in ground.processes(spec.run).items()}
    ground.launcher.resume(spec.run)  # as by a second click
    assert {name: process.pid for name, process in ground.processes(spec.run).items()} == resumed
    assert ground.launcher.status(spec.run).phase in ("starting", "training")
    status = ground.wait(spec.run, lambda status: status.phase == "done", "the end of the run")
    assert status.result is not None
    assert status.result["artifact"] == finished.digest  # bit for bit
    assert [record.number for record in status.rounds] == list(range(1, 31))
    assert status.rounds[: len(before.rounds)] == before.rounds
    assert f"resuming in round {len(before.rounds) + 1}" in ground.log(spec.run, "aggregator")


def test_what_cannot_be_gone_on_with_is_said(ground: RunGround, finished: FinishedRun) -> None:
    with pytest.raises(LookupError, match="holds no run"):
        ground.launcher.resume("run-9")
    with pytest.raises(LookupError, match="run-1 is done"):
        finished.ground.launcher.resume("run-1")
