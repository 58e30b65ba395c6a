from __future__ import annotations

import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from rich.console import Console

from blog_site.demo.management.commands import demo
from blog_site.demo.management.commands.demo import choose_addresses, ignore_interrupts, only_one_demo
from blog_site.demo.services import Addresses, answers, make_services
from tests.demo.test_supervisor import free_run
from tests.servers import wait_until

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def var_dir(settings, tmp_path: Path) -> Path:
    settings.VAR_DIR = tmp_path / "var"
    settings.QUEUE_DIR = tmp_path / "var" / "queue"
    return settings.VAR_DIR


def test_of_two_demos_in_one_folder_the_second_is_refused(var_dir: Path) -> None:
    with only_one_demo(), pytest.raises(CommandError, match=str(var_dir)), only_one_demo():
        raise AssertionError("two demos at once")


def test_after_one_demo_another_may_run(var_dir: Path) -> None:
    for _ in range(2):
        with only_one_demo():
            assert (var_dir / "demo.lock").exists()


def test_a_demo_that_was_killed_does_not_lock_out_the_next(var_dir: Path) -> None:
    var_dir.mkdir()
    command = [sys.executable, "-c", HOLD, str(var_dir / "demo.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CommandError), only_one_demo():
            raise AssertionError("two demos at once")
        other.kill()
        other.wait()

    with only_one_demo():
        pass


def is_free(path: Path) -> bool:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_service_does_not_hold_the_lock_of_the_demo_that_started_it(var_dir: Path) -> None:
    """Were the lock inherited, a child that outlived the demo would keep the next one out."""
    with only_one_demo():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    try:
        # The kernel lets a parent go on a moment before it closes what the child is not to inherit.
        wait_until(lambda: is_free(var_dir / "demo.lock"), "the lock is free")
    finally:
        child.kill()
        child.wait()


def test_a_report_belongs_to_going_round_once(var_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--once"):
        call_command("demo", json=tmp_path / "report.json")
    assert not var_dir.exists()


def test_busy_ports_are_passed_over_and_said() -> None:
    port = free_run(6)
    console = Console(file=io.StringIO(), width=200)
    with socket.create_server(("127.0.0.1", port)):
        addresses = choose_addresses(port, console)

    assert addresses.web_port == port + 1
    assert addresses.inference_port == port + 2
    assert console.file.getvalue() == f"端口 {port} 已被占用，改用 {port + 1}\n"


def test_free_ports_are_taken_in_silence() -> None:
    port = free_run(6)
    console = Console(file=io.StringIO(), width=200)

    addresses = choose_addresses(port, console)

    assert (addresses.web_port, addresses.inference_port) == (port, port + 1)
    assert console.file.getvalue() == ""


@pytest.fixture
def _heeds_interrupts() -> Iterator[None]:
    """As a terminal starts a process; what is started in the background may ignore Ctrl-C from its birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_interrupts")
def test_while_stopping_a_second_interrupt_is_ignored() -> None:
    with ignore_interrupts():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        demo.interrupt(signal.SIGTERM, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_every_service_is_told_where_inference_is_and_old_signs_of_readiness_are_removed(
    var_dir: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "worker.ready").touch()

    services = {service.name: service for service in make_services(Addresses(8123, 8124), run_dir)}

    assert set(services) == {"inference", "web", "worker", "labeller", "beat"}
    assert {service.environment["INFERENCE_URL"] for service in services.values()} == {
        "http://127.0.0.1:8124"
    }
    assert not services["worker"].is_ready()
    assert "127.0.0.1:8123" in services["web"].command
    assert "8124" in services["inference"].command
    (run_dir / "worker.ready").touch()
    assert services["worker"].is_ready()
    assert not services["beat"].is_ready()


def test_an_address_answers_or_it_does_not(tmp_path: Path) -> None:
    port = free_run(2)
    assert not answers(f"http://127.0.0.1:{port}/")
    command = [
        sys.executable,
        "-m",
        "http.server",
        str(port),
        "--bind",
        "127.0.0.1",
        "--directory",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the server answers")
            assert not answers(f"http://127.0.0.1:{port}/nothing-here")
        finally:
            server.kill()


def test_a_report_of_an_earlier_time_does_not_outlive_the_start(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text('{"ok": true}')

    demo.forget_report(path)

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CommandError, match="nowhere/report.json: No such file"):
        demo.forget_report(tmp_path / "nowhere" / "report.json")


def test_words_to_a_terminal_that_is_gone_stop_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, words: str) -> int:
            raise OSError(5, "Input/output error")

    demo.say(Console(file=Gone()), "正在停止")
