"""The supervisor with tiny services: real processes, real signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from blog_site.demo import supervisor as module
from blog_site.demo.supervisor import Service, ServiceFailed, Supervisor, find_free_port
from tests.servers import wait_until

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
SLEEP = "import time; time.sleep(600)"
STUBBORN = """
import signal, sys, time, pathlib
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""
# Starts a child that outlives it: the child ignores SIGTERM and never looks at its parent.
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def make_service(
    name: str, code: str, *arguments: object, is_ready: Callable[[], bool] = lambda: True
) -> Service:
    return Service(name, ["-c", code, *map(str, arguments)], {}, is_ready)


Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Start services; whatever the test does, they are stopped at its end."""
    started: list[Supervisor] = []

    def start(*services: Service) -> Supervisor:
        supervisor = Supervisor(services, tmp_path / "logs")
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop()


def pids(supervisor: Supervisor) -> list[int]:
    return [running.process.pid for running in supervisor._running]


# -- Starting ------------------------------------------------------------------------------------------------------


def test_each_service_is_given_when_it_is_ready(supervise: Supervise, tmp_path: Path) -> None:
    slow = tmp_path / "slow.ready"
    code = "import pathlib, sys, time; time.sleep(0.5); pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    supervisor = supervise(
        make_service("slow", code, slow, is_ready=slow.exists), make_service("quick", SLEEP)
    )

    names = []
    for service in supervisor.wait_until_ready():
        names.append(service.name)
        assert slow.exists() is (service.name == "slow")

    assert names == ["quick", "slow"]


def test_a_service_gets_its_environment_and_writes_into_its_log(supervise: Supervise) -> None:
    code = (
        "import os; print(os.environ['WORD'], 'PATH' in os.environ, flush=True); import time; time.sleep(600)"
    )
    service = Service("echo", ["-c", code], {"WORD": "回声", "PYTHONUTF8": "1"}, lambda: True)
    supervisor = supervise(service)

    wait_until(lambda: supervisor.log(service).read_text() == "回声 True\n", "the service has written")


def test_a_service_that_dies_at_once_is_reported_with_the_end_of_its_log(
    supervise: Supervise, tmp_path: Path
) -> None:
    code = "print(*range(100), sep='\\n'); raise SystemExit('端口 8000 已被占用')"
    service = Service("web", ["-c", code], {"PYTHONUTF8": "1"}, lambda: False)
    supervisor = supervise(make_service("worker", SLEEP), service)

    with pytest.raises(ServiceFailed) as failure:
        list(supervisor.wait_until_ready())

    words = str(failure.value)
    assert "web ended with status 1" in words
    assert str(tmp_path / "logs" / "web.log") in words
    assert "端口 8000 已被占用" in words
    lines = {line.strip() for line in words.splitlines()}
    assert "99" in lines
    assert "50" not in lines, "the end of the log, not all of it"


def test_a_service_that_never_gets_ready_is_named_with_its_log(supervise: Supervise, monkeypatch) -> None:
    monkeypatch.setattr(module, "READY_SECONDS", 3)
    waiting = f"print('waiting for godot', flush=True); {SLEEP}"
    supervisor = supervise(make_service("beat", waiting, is_ready=lambda: False), make_service("web", SLEEP))

    with pytest.raises(
        ServiceFailed, match=r"^not ready after 3 s:\nbeat: .*/beat\.log says\n  waiting for godot$"
    ):
        list(supervisor.wait_until_ready())


# -- Restarting ----------------------------------------------------------------------------------------------------


class Enough(Exception):
    """Ends the watching, as Ctrl-C does."""


def test_a_service_that_dies_later_is_restarted_and_the_others_go_on(supervise: Supervise) -> None:
    supervisor = supervise(make_service("worker", SLEEP), make_service("web", SLEEP))
    before = pids(supervisor)
    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)

    os.kill(before[0], signal.SIGKILL)
    watch(supervisor, say, until=lambda: pids(supervisor)[0] != before[0])

    after = pids(supervisor)
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert all(is_alive(pid) for pid in after)
    assert len(said) == 1
    assert "worker ended with status -9" in said[0]


def watch(
    supervisor: Supervisor, say: Callable[[str], None], *, until: Callable[[], bool], seconds: float = 30
) -> None:
    """Watch until the condition holds; the supervisor's own pauses are where it is asked."""
    deadline = time.monotonic() + seconds
    pause = time.sleep

    def look(length: float) -> None:
        if until():
            raise Enough
        assert time.monotonic() < deadline, f"nothing happened within {seconds} s"
        pause(length)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Enough):
        patch.setattr(module.time, "sleep", look)
        supervisor.watch(say)


def test_a_service_that_dies_again_and_again_is_given_up(supervise: Supervise) -> None:
    supervisor = supervise(make_service("worker", "raise SystemExit('no broker')"))
    said: list[str] = []

    with pytest.raises(ServiceFailed, match="no broker"):
        supervisor.watch(said.append)

    assert len(said) == 2, "restarted twice, given up at the third death"


def test_a_service_that_was_steady_is_always_restarted(supervise: Supervise, monkeypatch) -> None:
    monkeypatch.setattr(module, "STEADY_SECONDS", 0.0)
    supervisor = supervise(make_service("worker", "pass"))
    said: list[str] = []

    watch(supervisor, said.append, until=lambda: len(said) >= 5)

    assert len(said) >= 5


# -- Stopping ------------------------------------------------------------------------------------------------------


def test_stopping_ends_polite_services_at_once(supervise: Supervise) -> None:
    supervisor = supervise(*(make_service(f"service-{number}", SLEEP) for number in range(3)))
    services = pids(supervisor)

    began = time.monotonic()
    supervisor.stop()

    assert time.monotonic() - began < 3
    assert not any(is_alive(pid) for pid in services)


def test_stopping_ends_stubborn_services_and_their_children_within_ten_seconds(
    supervise: Supervise, tmp_path: Path
) -> None:
    mine, childs = tmp_path / "stubborn", tmp_path / "child"
    supervisor = supervise(
        make_service("stubborn", STUBBORN, mine), make_service("parent", PARENT, childs, STUBBORN)
    )
    wait_until(lambda: mine.exists() and childs.exists(), "both ignore SIGTERM by now")
    grandchildren = [
        child.pid for pid in pids(supervisor) for child in psutil.Process(pid).children(recursive=True)
    ]
    everybody = pids(supervisor) + grandchildren
    assert len(everybody) == 3

    began = time.monotonic()
    supervisor.stop()

    assert time.monotonic() - began < 10
    wait_until(lambda: not any(is_alive(pid) for pid in everybody), "all of them are gone")


def test_a_child_that_outlives_its_service_is_stopped_too(supervise: Supervise, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    supervisor = supervise(make_service("parent", PARENT, ready, STUBBORN))
    wait_until(ready.exists, "the child ignores SIGTERM by now")
    (child,) = psutil.Process(pids(supervisor)[0]).children()

    supervisor.stop()

    wait_until(lambda: not is_alive(child.pid), "the child is gone")


def test_stopping_twice_is_fine(supervise: Supervise) -> None:
    supervisor = supervise(make_service("worker", SLEEP))
    supervisor.stop()
    supervisor.stop()

    assert pids(supervisor) == []


SUPERVISE = """
import sys, time
from pathlib import Path
from blog_site.demo.supervisor import Service, Supervisor
code = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
folder = Path(sys.argv[1])
services = [Service(name, ["-c", code, str(folder / name)], {}, lambda: True) for name in ("web", "worker")]
Supervisor(services, folder / "logs").start()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_killing_the_supervisor_with_9_ends_its_services(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISE, str(tmp_path)], cwd=ROOT)
    written = [tmp_path / "web", tmp_path / "worker"]
    try:
        wait_until(lambda: all(file.exists() and file.read_text() for file in written), "both services run")
        services = [int(file.read_text()) for file in written]
        assert all(is_alive(pid) for pid in services)
    finally:
        supervisor.kill()
        supervisor.wait()

    wait_until(lambda: not any(is_alive(pid) for pid in services), "both services are gone")


# -- Ports ---------------------------------------------------------------------------------------------------------


def free_run(length: int) -> int:
    """The first of some neighbouring ports that are all free now."""
    for first in range(42_000, 60_000, length):
        try:
            for port in range(first, first + length):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_busy_port_is_skipped(address: str) -> None:
    port = free_run(4)
    assert find_free_port(port) == port
    with socket.create_server((address, port)), socket.create_server((address, port + 1)):
        assert find_free_port(port) == port + 2


def test_without_a_free_port_it_says_so(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("in use")

    monkeypatch.setattr(module.socket.socket, "bind", refuse)

    with pytest.raises(ServiceFailed, match="no free port between 8000 and 8099"):
        find_free_port(8000)


@pytest.mark.parametrize("wanted", [65_536, 99_999])
def test_a_port_beyond_all_ports_is_refused(wanted: int) -> None:
    with pytest.raises(ServiceFailed, match="no free port"):
        find_free_port(wanted)
