"""`python -m tests.servers -- COMMAND …` runs a command beside a real MariaDB and a real Redis.

Both listen on free ports of 127.0.0.1 and keep everything in one temporary folder. The command finds them through
DATABASE_URL, REDIS_URL and CELERY_BROKER_URL. However it ends, both are stopped and the folder is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from infra.setup.servers import (
    DATABASE,
    PASSWORD,
    START_SECONDS,
    STOP_SECONDS,
    USER,
    ServerError,
    find_free_port,
    find_program,
    mariadb_answers,
    redis_answers,
    running_mariadb,
    running_redis,
    running_server,
    stop_process,
    tied_to_parent,
)

__all__ = [
    "DATABASE",
    "PASSWORD",
    "USER",
    "find_free_port",
    "find_program",
    "is_there",
    "mariadb_answers",
    "redis_answers",
    "running_mariadb",
    "running_redis",
    "running_server",
    "running_servers",
    "wait_until",
]


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Wait for something that another process or thread does; fails naming `what` when it does not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.03)


def is_there(url: str) -> bool:
    """Whether a server answers there, and well."""
    import httpx

    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def running_servers() -> Iterator[dict[str, str]]:
    """Both servers; yields the environment variables that lead to them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="huisheng-servers-")))
        redis_address = stack.enter_context(running_redis(folder))
        database_url = stack.enter_context(running_mariadb(folder))
        yield {
            "DATABASE_URL": database_url,
            "REDIS_URL": f"{redis_address}/0",
            "CELERY_BROKER_URL": f"{redis_address}/1",
        }


def run_command(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command to its end and return its status; whatever interrupts this process ends the command first."""
    process = subprocess.Popen(command, env=os.environ | environment, preexec_fn=tied_to_parent())
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal sent Ctrl-C to the command as well; it is given the time to end by itself.
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        raise
    finally:
        if process.poll() is None:
            stop_process(process)


def end_on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2 or arguments[0] != "--":
        print("usage: python -m tests.servers -- COMMAND [ARGUMENT …]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, end_on_signal)
    signal.signal(signal.SIGHUP, end_on_signal)
    try:
        with running_servers() as environment:
            return run_command(arguments[1:], environment)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
