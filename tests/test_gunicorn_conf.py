"""The blog as a container serves it: a real gunicorn with the configuration of the image."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.once

START_SECONDS = 60


class Web:
    """A gunicorn on a port of its own; what it writes is in files."""

    def __init__(self, folder: Path, application: str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._output = folder / "stdout"
        command = [sys.executable, "-m", "gunicorn", "--config", "python:blog_site.gunicorn_conf"]
        with self._output.open("w") as output, (folder / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{self.port}", application],
                env=os.environ | {"WEB_CONCURRENCY": "1", "VAR_DIR": str(folder)} | environment,
                stdout=output,
                stderr=errors,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=30)

    def wait_until_it_lives(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "gunicorn ended"
            try:
                self.http.get(path)
                return
            except httpx.TransportError:
                time.sleep(0.05)
        pytest.fail(f"nothing answered within {START_SECONDS} s")

    def accesses(self, path: str) -> list[dict[str, Any]]:
        lines = self._output.read_text(encoding="utf-8").splitlines()
        return [access for access in map(json.loads, lines) if access["path"] == path]

    def stop(self) -> int:
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "static").mkdir()
    environment = {"ALLOWED_HOSTS": "blog.example", "BEHIND_GATEWAY": "1"}
    started = Web(folder, "blog_site.wsgi", DATABASE_URL=f"sqlite:///{folder}/db", **environment)
    try:
        started.wait_until_it_lives("/livez")
        yield started
    finally:
        started.stop()


def test_each_access_is_a_line_of_json_under_the_gateways_request_id(web: Web) -> None:
    headers = {"X-Request-ID": "abc-1", "X-Real-IP": "192.0.2.7", "Host": "blog.example"}
    web.http.get('/no/such/"page"?token=hidden', headers=headers)
    deadline = time.monotonic() + 10
    while not (found := web.accesses('/no/such/"page"')) and time.monotonic() < deadline:
        time.sleep(0.02)
    (access,) = found
    assert access["request_id"] == "abc-1"
    assert access["remote"] == "192.0.2.7"
    assert (access["method"], access["status"], access["host"]) == ("GET", 404, "blog.example")
    assert access["milliseconds"] > 0
    assert "hidden" not in json.dumps(access)


def test_a_probe_by_address_is_answered_and_leaves_a_line_only_when_it_fails(web: Web) -> None:
    assert web.http.get("/livez").status_code == 200
    missing = web.http.get("/readyz")  # this database is empty
    assert missing.status_code == 503
    assert missing.json()["error"].startswith("migrations to apply: ")
    deadline = time.monotonic() + 10
    while not web.accesses("/readyz") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [access["status"] for access in web.accesses("/readyz")] == [503]
    assert web.accesses("/livez") == []


SLOW = """
import pathlib, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        pathlib.Path("begun").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
"""


def test_a_request_under_way_is_answered_before_gunicorn_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    repository = Path(__file__).resolve().parent.parent
    monkeypatch.chdir(tmp_path)
    web = Web(tmp_path, "slow:application", PYTHONPATH=f"{repository}{os.pathsep}{tmp_path}")
    try:
        web.wait_until_it_lives("/")
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(web.http.get("/slow").text))
        asking.start()
        deadline = time.monotonic() + START_SECONDS
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        web.process.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        asking.join(timeout=30)
        assert answers == ["done"]
        assert web.process.wait(timeout=30) == 0
    finally:
        web.stop()


@pytest.mark.parametrize("value", ["two", "-1", "1.5"])
def test_a_setting_that_is_no_number_is_refused_by_name(value: str) -> None:
    command = [sys.executable, "-c", "import blog_site.gunicorn_conf"]
    refused = subprocess.run(
        command, env=os.environ | {"WEB_CONCURRENCY": value}, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert f"WEB_CONCURRENCY is {value!r}" in refused.stderr
