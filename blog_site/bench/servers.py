"""The blog and what it stands on, each a real process on loopback, with all they keep in a temporary folder."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.setup.servers import find_free_port, running_mariadb, running_redis, running_server
from ml.bench.processes import ROOT, BenchError

BUFFER_POOL_MB = 512  # a database server of a blog of this size has that
PATIENCE_SECONDS = (
    3600.0  # for one of our own commands; 100,000 articles take minutes, and on a busy machine many
)


@dataclass(frozen=True)
class Blog:
    """A blog's database and cache, and how its processes find them."""

    environment: Mapping[str, str]
    folder: Path
    web_port: int
    inference_port: int


@contextmanager
def running_data(folder: Path) -> Iterator[Blog]:
    """Run MariaDB and Redis, both empty."""
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(folder))
        database = stack.enter_context(running_mariadb(folder, buffer_pool_mb=BUFFER_POOL_MB))
        inference_port = find_free_port()
        environment = os.environ | {
            "ENV_FILE": os.devnull,
            "VAR_DIR": str(folder / "var"),
            "DJANGO_SETTINGS_MODULE": "blog_site.bench.settings",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "DEBUG": "0",
            "TLS": "0",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": database,
            "REDIS_URL": f"{redis}/0",
            "CELERY_BROKER_URL": f"{redis}/1",
            "ARTIFACT_STORE_URL": (folder / "store").as_uri(),
            "INFERENCE_URL": f"http://127.0.0.1:{inference_port}",
            "INFERENCE_TOKEN": "",
            "LABELLER": "snownlp",
            "LOG_LEVEL": "WARNING",
            # Twenty readers at one address, who write as fast as they are let.
            **{f"LIMIT_{what}": "1000000/minute" for what in ("COMMENTS", "WRITES")},
            "WEB_MAX_REQUESTS": "0",  # a worker that is replaced amid a measurement would be measured with it
        }
        (folder / "var").mkdir()
        yield Blog(environment, folder, find_free_port(), inference_port)


def run_step(blog: Blog, *arguments: str) -> Any:
    """Run a Python command beside the blog's data; gives the JSON it printed, if it did. Its progress is seen."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=dict(blog.environment),
            stdout=subprocess.PIPE,
            timeout=PATIENCE_SECONDS,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(arguments)} was not done after {PATIENCE_SECONDS:.0f} s") from error
    if done.returncode:
        raise BenchError(f"{' '.join(arguments)} ended with status {done.returncode}; see above")
    last = done.stdout.strip().splitlines()[-1:]
    return json.loads(last[0]) if last and last[0].startswith("{") else None


@contextmanager
def running_web(blog: Blog, core: int) -> Iterator[None]:
    """Run the blog on one core, as its container runs it."""
    address = f"127.0.0.1:{blog.web_port}"
    arguments = ["gunicorn", "--config", "python:blog_site.gunicorn_conf", "--bind", address]
    with _running(
        blog,
        "web",
        [*arguments, "blog_site.wsgi"],
        lambda: _is_ready(f"http://{address}/readyz"),
        cores={core},
    ):
        yield


@contextmanager
def running_services(blog: Blog) -> Iterator[None]:
    """Run what scores and labels comments: the inference service, and a worker for either queue."""
    with ExitStack() as stack:
        inference = ["ml.serve", "--store", blog.environment["ARTIFACT_STORE_URL"], "--host", "127.0.0.1"]
        stack.enter_context(
            _running(
                blog,
                "inference",
                [*inference, "--port", str(blog.inference_port)],
                lambda: _is_ready(f"{blog.environment['INFERENCE_URL']}/readyz"),
            )
        )
        for name, queue in (("worker", "celery"), ("labeller", "labels")):
            ready_file = blog.folder / f"{name}.ready"
            ready_file.unlink(missing_ok=True)
            command = ["celery", "-A", "blog_site", "worker", "--hostname", f"{name}@%h", "--queues", queue]
            command += ["--pool", "threads", "--concurrency", "2", "--without-gossip", "--without-mingle"]
            stack.enter_context(
                _running(blog, name, command, ready_file.exists, {"READY_FILE": str(ready_file)})
            )
        yield


@contextmanager
def _running(
    blog: Blog,
    name: str,
    module_and_arguments: Sequence[str],
    answers: Callable[[], bool],
    more_environment: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
) -> Iterator[None]:
    environment = {**blog.environment, **(more_environment or {})}
    command = [sys.executable, "-m", *module_and_arguments]
    with running_server(
        command,
        log=blog.folder / f"{name}.log",
        answers=answers,
        environment=environment,
        folder=ROOT,
        cores=cores,
    ):
        yield


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
