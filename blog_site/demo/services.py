"""The demo's processes: web, inference, worker and beat, as they are started in production, on one machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
from django.conf import settings

from blog_site.demo.supervisor import Service

PROBE_SECONDS = 2


@dataclass(frozen=True)
class Addresses:
    web_port: int
    inference_port: int

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def inference(self) -> str:
        return f"http://127.0.0.1:{self.inference_port}"


def make_services(addresses: Addresses, run_dir: Path) -> list[Service]:
    """`run_dir` holds the files by which worker and beat say that they are ready; it is emptied of old ones."""
    run_dir.mkdir(parents=True, exist_ok=True)
    shared = {"INFERENCE_URL": addresses.inference, "PYTHONUNBUFFERED": "1"}
    inference = ["-m", "ml.serve", "--store", settings.ARTIFACT_STORE_URL, "--host", "127.0.0.1"]
    web = ["-m", "gunicorn", "blog_site.wsgi", "--bind", f"127.0.0.1:{addresses.web_port}", "--threads", "8"]
    celery = {
        "worker": worker_command("worker", queue="celery", threads=4),
        "labeller": worker_command("labeller", queue="labels", threads=2),
        "beat": ["-m", "celery", "-A", "blog_site", "beat", "--loglevel", "INFO", "--pidfile", ""],
    }
    return [
        Service(
            "inference",
            [*inference, "--port", str(addresses.inference_port)],
            shared,
            lambda: answers(f"{addresses.inference}/readyz"),
        ),
        Service("web", web, shared, lambda: answers(f"{addresses.web}/readyz")),
        *(celery_service(name, command, shared, run_dir) for name, command in celery.items()),
    ]


def worker_command(name: str, *, queue: str, threads: int) -> list[str]:
    """A worker of one queue.

    Threads, not processes: tasks wait for HTTP, and a laptop has better uses for its memory.
    """
    command = ["-m", "celery", "-A", "blog_site", "worker", "--hostname", f"{name}@%h", "--queues", queue]
    command += ["--pool", "threads", "--concurrency", str(threads), "--loglevel", "INFO"]
    return [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"]


def celery_service(name: str, command: list[str], shared: dict[str, str], run_dir: Path) -> Service:
    ready_file = run_dir / f"{name}.ready"
    ready_file.unlink(missing_ok=True)
    return Service(name, command, {**shared, "READY_FILE": str(ready_file)}, ready_file.exists)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PROBE_SECONDS, trust_env=False).is_success
    except httpx.TransportError:
        return False
