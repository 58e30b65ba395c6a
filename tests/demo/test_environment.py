from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from blog_site.demo.environment import ensure_secret_key, read_env, write_env

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


def test_writing_keeps_the_other_values(tmp_path: Path) -> None:
    path = tmp_path / "var" / "env"
    write_env(path, {"SECRET_KEY": "a=b=c", "INFERENCE_URL": "http://127.0.0.1:8001"})

    write_env(path, {"INFERENCE_URL": "http://127.0.0.1:9001", "LABELLER": "snownlp"})

    assert read_env(path) == {
        "SECRET_KEY": "a=b=c",
        "INFERENCE_URL": "http://127.0.0.1:9001",
        "LABELLER": "snownlp",
    }


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("LABELLER=snownlp\n")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_env(path, {"SECRET_KEY": "x"})
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["env"], "no unfinished copy stays behind"


def test_comments_and_blank_lines_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("# A=1\n\nB=2\nnonsense\n", encoding="utf-8")

    assert read_env(path) == {"B": "2"}
    assert read_env(tmp_path / "missing") == {}


def test_a_machine_gets_a_secret_key_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    path = tmp_path / "env"
    ensure_secret_key(path)
    key = read_env(path)["SECRET_KEY"]

    ensure_secret_key(path)

    assert read_env(path)["SECRET_KEY"] == key
    assert len(key) >= 50
    ensure_secret_key(tmp_path / "other")
    assert read_env(tmp_path / "other")["SECRET_KEY"] != key


def test_a_key_in_the_environment_is_left_to_count(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "from the environment")

    ensure_secret_key(tmp_path / "env")

    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("var_dir", ["var", "一个 文件夹"])
def test_the_file_runs_before_django_can_be_set_up_and_settings_read_what_it_wrote(
    tmp_path: Path, var_dir: str
) -> None:
    """As `make demo` begins: `python -I blog_site/demo/environment.py FILE`, with no SECRET_KEY anywhere."""
    path = tmp_path / var_dir / "env"
    bare = {"PATH": os.environ["PATH"], "ENV_FILE": str(path), "VAR_DIR": str(tmp_path / var_dir)}
    script = [sys.executable, "-I", "blog_site/demo/environment.py", str(path)]
    subprocess.run(script, cwd=ROOT, env=bare, check=True, timeout=60)

    code = "from blog_site import settings; print(settings.SECRET_KEY)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=bare,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )

    assert said.stdout.strip() == read_env(path)["SECRET_KEY"]
