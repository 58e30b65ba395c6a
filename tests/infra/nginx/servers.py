"""Real nginx processes, started as the image starts them, on free ports and folders of the test's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import find_free_port, find_program, is_there, running_server

ROOT = Path(__file__).resolve().parents[3]
START = ROOT / "infra" / "nginx" / "start.sh"
# As root, nginx would hand the work to a user who may not enter the test's folders.
AS_ROOT = ["-g", "user root;"] if os.getuid() == 0 else []

BLOG_TOKEN = "blog-token-0123456789abcdef"
RUN_TOKEN = "run-token-0123456789abcdefg"
READ_TOKEN = "read-token-0123456789abcdef"
SIGNING_KEY = "signing-key-0123456789abcdef"
STORE_SECRETS = {
    "ARTIFACT_STORE_TOKEN": BLOG_TOKEN,
    "ARTIFACT_STORE_RUN_TOKEN": RUN_TOKEN,
    "ARTIFACT_STORE_READ_TOKEN": READ_TOKEN,
    "ARTIFACT_STORE_SIGNING_KEY": SIGNING_KEY,
}


@dataclass(frozen=True)
class Nginx:
    url: str
    port: int
    log: Path
    run_dir: Path

    @property
    def pid(self) -> int:
        return int((self.run_dir / "nginx.pid").read_text())


@contextmanager
def running_nginx(
    role: str, folder: Path, environment: Mapping[str, str], *, port: int | None = None
) -> Iterator[Nginx]:
    """nginx as the gateway or the store, until the block ends."""
    port = port or find_free_port()
    folder.mkdir(parents=True, exist_ok=True)
    find_program("nginx")
    settings = {"PORT": str(port), "RUN_DIR": str(folder / "run"), "WORKERS": "1"}
    command = [
        "env",
        "-i",
        f"PATH={os.environ['PATH']}",
        *(f"{name}={value}" for name, value in {**settings, **environment}.items()),
    ]
    nginx = Nginx(f"http://127.0.0.1:{port}", port, folder / "nginx.log", folder / "run")
    with running_server(
        [*command, str(START), role, *AS_ROOT], log=nginx.log, answers=lambda: is_there(f"{nginx.url}/livez")
    ):
        yield nginx


@contextmanager
def running_store(folder: Path, *, port: int | None = None, **environment: str) -> Iterator[Nginx]:
    """The artifact store over `folder`/store, with the tests' tokens."""
    root = folder / "store"
    root.mkdir(parents=True, exist_ok=True)
    with running_nginx(
        "store", folder / "nginx", {"STORE_ROOT": str(root), **STORE_SECRETS, **environment}, port=port
    ) as nginx:
        yield nginx


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def running_blog(
    folder: Path, environment: Mapping[str, str], *, port: int, host: str = "127.0.0.1"
) -> Iterator[str]:
    """A real gunicorn that serves the blog on SQLite; yields its address."""
    url = f"http://{host}:{port}"
    command = [sys.executable, "-m", "gunicorn", "blog_site.wsgi", "--bind", f"{host}:{port}"]
    command += ["--threads", "4", "--worker-class", "gthread", "--keep-alive", "75", "--no-control-socket"]
    folder.mkdir(parents=True, exist_ok=True)
    with running_server(
        ["env", *(f"{name}={value}" for name, value in environment.items()), *command],
        log=folder / "gunicorn.log",
        answers=lambda: is_there(f"{url}/livez"),
    ):
        yield url
