"""The whole loop for real: every process, every protocol, one comment's way to a rollout."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
ONCE_SECONDS = 1500  # a slow machine's; the demo itself takes a few minutes
READY_SECONDS = 120
STOP_SECONDS = 10

pytestmark = [pytest.mark.flow, pytest.mark.long, pytest.mark.timeout(ONCE_SECONDS + 300)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine of its own: nothing of this test run's database, broker or secret."""
    var_dir = tmp_path_factory.mktemp("demo") / "var"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    values = {**kept, "VAR_DIR": str(var_dir), "ENV_FILE": str(var_dir / "env")}
    make_key = [sys.executable, "-I", "blog_site/demo/environment.py", values["ENV_FILE"]]
    subprocess.run(make_key, cwd=ROOT, env=values, check=True, timeout=60)
    return values


@pytest.fixture(scope="module")
def report(environment: dict[str, str]) -> dict[str, Any]:
    path = Path(environment["VAR_DIR"]).parent / "report.json"
    command = [sys.executable, "manage.py", "demo", "--once", "--json", str(path), "--port", "18000"]
    outcome = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=ONCE_SECONDS, check=False
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def test_one_command_walks_the_whole_loop(report: dict[str, Any]) -> None:
    assert report["ok"] is True
    assert report["seconds"].keys() == {"setup", "first_training", "loop"}
    first = report["first_model"]
    assert first["sites"] == 5
    assert first["train_samples"] > 10_000
    assert first["macro_f1"] > 0.75  # guessing would give about 0.5
    assert first["test_samples"] > 1_500


def test_every_posted_comment_is_predicted_and_labelled(report: dict[str, Any]) -> None:
    comments = report["comments"]
    assert comments["posted"] == comments["predicted"] == comments["labelled"] >= 10
    assert 1 <= comments["corrected"] <= comments["samples"]


def test_the_retrained_model_is_served_and_no_request_failed_on_the_way(report: dict[str, Any]) -> None:
    assert report["retraining"]["state"] == "promoted"
    assert report["retraining"]["new_samples"] >= report["comments"]["samples"]
    assert report["promotion"]["from"] == report["first_model"]["digest"]
    assert report["served_model"] == report["promotion"]["to"] != report["promotion"]["from"]
    assert report["requests_during_swap"] >= 200
    assert report["failed_requests_during_swap"] == 0


def test_the_first_model_takes_the_demos_comments_as_a_reader_would(
    environment: dict[str, str], report: dict[str, Any]
) -> None:
    """Of what no moderator labelled, too: none of the three sentiments swallows the others."""
    said_of = """
        SELECT label, COUNT(*) FROM comments_prediction WHERE model_digest = ? AND NOT EXISTS
            (SELECT 1 FROM labels_label WHERE labels_label.comment_id = comments_prediction.comment_id
             AND source = 'moderator')
        GROUP BY label
    """
    with contextlib.closing(sqlite3.connect(Path(environment["VAR_DIR"]) / "db.sqlite3")) as database:
        counts = dict(database.execute(said_of, (report["first_model"]["digest"],)).fetchall())
    assert set(counts) == {"negative", "neutral", "positive"}
    assert max(counts.values()) < 0.7 * sum(counts.values())


def test_nothing_is_left_running_after_the_loop(environment: dict[str, str], report: dict[str, Any]) -> None:
    assert processes_of(environment) == []


def test_a_second_start_retrains_nothing_and_ctrl_c_leaves_no_process(
    environment: dict[str, str], report: dict[str, Any]
) -> None:
    with started_demo(environment) as demo:
        address = wait_for_welcome(demo, Path(environment["VAR_DIR"]))
        page = httpx.get(address, timeout=10)
        assert page.status_code == 200
        assert "回声" in page.text
        began = time.monotonic()
        demo.send_signal(signal.SIGINT)
        demo.wait(STOP_SECONDS + 5)
        assert time.monotonic() - began < STOP_SECONDS
    assert processes_of(environment) == []
    runs = sorted(path.name for path in (Path(environment["VAR_DIR"]) / "runs").iterdir())
    assert runs == ["run-1", "run-2"]  # the first training and the retraining of --once


class started_demo:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> subprocess.Popen[bytes]:
        log = Path(self._environment["VAR_DIR"]).parent / "second.log"
        command = [sys.executable, "manage.py", "demo", "--port", "18000"]
        with log.open("wb") as output:
            self._demo = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )
        return self._demo

    def __exit__(self, *details: object) -> None:
        if self._demo.poll() is None:
            self._demo.kill()  # its services end with it
            self._demo.wait()


def wait_for_welcome(demo: subprocess.Popen[bytes], var_dir: Path) -> str:
    log = var_dir.parent / "second.log"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        assert demo.poll() is None, text
        if "回声在这里" in text:
            return "http://127.0.0.1:" + text.split("http://127.0.0.1:", 1)[1].split("（", 1)[0].strip()
        time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))


def processes_of(environment: dict[str, str]) -> list[str]:
    """Processes that know of this demo's folder, by their arguments or their environment."""
    return [" ".join(process.cmdline()) for process in others() if knows(process, environment["VAR_DIR"])]


def others() -> Iterator[psutil.Process]:
    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def knows(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in word for word in [*process.cmdline(), *process.environ().values()])
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return False
