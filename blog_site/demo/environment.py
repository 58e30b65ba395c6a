"""`var/env`: what the processes of one machine share. Settings read it; this writes it."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path


def read_env(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def write_env(path: Path, values: dict[str, str]) -> None:
    """Merge values into the file, readable by its owner only: it holds the SECRET_KEY."""
    merged = {**read_env(path), **values}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in merged.items())
    unfinished.replace(path)


def ensure_secret_key(path: Path) -> None:
    """Give this machine a SECRET_KEY of its own, once."""
    if "SECRET_KEY" not in os.environ and "SECRET_KEY" not in read_env(path):
        write_env(path, {"SECRET_KEY": secrets.token_urlsafe(50)})


if __name__ == "__main__":
    # `python blog_site/demo/environment.py FILE`, run as a file: settings cannot be loaded before the key exists.
    ensure_secret_key(Path(sys.argv[1]))
