"""`make backup`, `make backups` and `make restore`: the order of what they ask the cluster for, and when they stop."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.k8s.conftest import REPOSITORY
from tests.infra.k8s.manifests import Manifests

SCRIPT = REPOSITORY / "infra" / "k8s" / "backups.sh"
NAME = "huisheng-20260101T031700Z.sql.gz"
WRITERS = ["web", "worker", "labeller", "beat"]


class StandIn:
    """A kubectl that notes what it is asked; its Jobs end as the test says."""

    def __init__(self, folder: Path, job: str) -> None:
        self.folder = folder
        (folder / "job.json").write_text(job)
        self.program = folder / "kubectl"
        self.program.write_text(
            f"""#!/bin/sh
echo "$*" >>{folder}/asked
[ "$1" = --namespace ] && shift 2
case "$*" in
"create job "*) cat {folder}/job.json ;;
"create -f -") cat >{folder}/created ;;
"get job "*) cat {folder}/conditions ;;
"get pods --selector app.kubernetes.io/name in ("*)
    [ ! -e {folder}/writers ] || cat {folder}/writers; rm -f {folder}/writers ;;
"get pods "*) cat {folder}/exit ;;
"get deployment web "*) echo 3 ;;
"get deployment "*) echo 1 ;;
"logs "*) echo "the log of the job" ;;
"scale "*|"delete job "*) ;;
"config current-context") echo test ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
        )
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        self.end("Complete")
        (folder / "writers").write_text("pod/web-1\npod/worker-1\n")  # at the first look

    def end(self, condition: str, exit_status: int = 0) -> None:
        (self.folder / "conditions").write_text(condition)
        (self.folder / "exit").write_text(str(exit_status))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", SCRIPT, *arguments],
            env={"PATH": os.environ["PATH"], "KUBECTL": str(self.program), "CONFIRM": "yes"} | environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    def asked(self) -> list[str]:
        asked = self.folder / "asked"
        return (
            [line.removeprefix("--namespace huisheng ") for line in asked.read_text().splitlines()]
            if asked.exists()
            else []
        )

    def scaled(self) -> dict[str, str]:
        """How many replicas each had been given last."""
        lines = [line.split() for line in self.asked() if line.startswith("scale ")]
        return {words[2]: words[4] for words in lines}


@pytest.fixture
def cluster(tmp_path: Path, build: Callable[[str], Manifests]) -> StandIn:
    template = build("overlays/local").get("CronJob", "restore")["spec"]["jobTemplate"]
    return StandIn(tmp_path, json.dumps({"apiVersion": "batch/v1", "kind": "Job", **template}, indent=2))


def test_a_restore_stops_the_writers_runs_the_job_and_starts_them_as_they_were(cluster: StandIn) -> None:
    done = cluster.run("restore", NAME)

    assert done.returncode == 0, done.stderr
    asked = cluster.asked()
    stopped = [f"scale deployment {name} --replicas 0" for name in WRITERS]
    started = [f"scale deployment {name} --replicas {3 if name == 'web' else 1}" for name in WRITERS]
    scales = [line for line in asked if line.startswith("scale ")]
    assert scales == stopped + started
    looks = [number for number, line in enumerate(asked) if "app.kubernetes.io/name in (" in line]
    assert len(looks) == 2  # until none is left
    gone = looks[-1]
    made = asked.index("create -f -")
    assert asked.index(stopped[-1]) < gone < made < asked.index(started[0])
    created = json.loads((cluster.folder / "created").read_text())
    restore, _migrate = created["spec"]["template"]["spec"]["initContainers"]
    assert {"name": "FILE", "value": NAME} in restore["env"]
    assert "the log of the job" in done.stdout


def test_a_restore_after_one_that_was_cut_short_finds_nobody_to_wait_for(cluster: StandIn) -> None:
    (cluster.folder / "writers").unlink()

    done = cluster.run("restore", NAME)

    assert done.returncode == 0, done.stderr
    assert (cluster.folder / "created").exists()


def test_a_dump_that_is_refused_leaves_the_blog_running(cluster: StandIn) -> None:
    cluster.end("Failed", exit_status=2)

    done = cluster.run("restore", NAME)

    assert done.returncode == 1
    assert "the database is as it was" in done.stderr
    assert set(cluster.scaled()) == set(WRITERS)
    assert "0" not in cluster.scaled().values()


def test_a_restore_that_failed_half_way_keeps_the_writers_stopped(cluster: StandIn) -> None:
    cluster.end("Failed", exit_status=1)

    done = cluster.run("restore", NAME)

    assert done.returncode == 1
    assert "stays stopped" in done.stderr
    assert set(cluster.scaled().values()) == {"0"}


def test_nothing_is_replaced_without_a_yes(cluster: StandIn) -> None:
    done = cluster.run("restore", NAME, CONFIRM="")

    assert done.returncode == 1
    assert "CONFIRM=yes" in done.stderr
    assert cluster.asked() == []


@pytest.mark.parametrize("file", ["", "../web.env", "a b", 'x";'])
def test_a_name_that_is_no_files_is_refused(cluster: StandIn, file: str) -> None:
    done = cluster.run("restore", file)

    assert done.returncode == 1
    assert cluster.asked() == []


def test_a_backup_by_hand_is_a_job_of_the_nightly_one(cluster: StandIn) -> None:
    done = cluster.run("now")

    assert done.returncode == 0, done.stderr
    assert any("--from=cronjob/backup" in line for line in cluster.asked())
    assert cluster.scaled() == {}


def test_listing_backups_asks_the_restore_for_none(cluster: StandIn) -> None:
    cluster.end("Failed", exit_status=2)

    done = cluster.run("list")

    assert done.returncode == 0, done.stderr
    assert "the log of the job" in done.stdout
    assert '"not-said"' in (cluster.folder / "created").read_text()
    assert cluster.asked()[-1].startswith("delete job ")


def test_the_scripts_hold_no_trap_that_shellcheck_knows() -> None:
    scripts = sorted(REPOSITORY.glob("infra/k8s/**/*.sh"))
    assert len(scripts) >= 6
    checked = subprocess.run(
        [REPOSITORY / ".venv" / "bin" / "shellcheck", "--external-sources", *scripts],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
