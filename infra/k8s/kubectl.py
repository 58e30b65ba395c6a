"""kubectl, by which everything here reaches a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


class ReleaseError(Exception):
    """Nothing can be rendered or deployed so; the message says what to do."""


def kubectl_program() -> str:
    """Find kubectl: KUBECTL, the one of this machine, or the one that the tests brought."""
    ours = REPOSITORY / ".venv" / "bin" / "kubectl"
    found = os.environ.get("KUBECTL") or shutil.which("kubectl") or (str(ours) if ours.exists() else None)
    if not found:
        raise ReleaseError("kubectl is not installed: see kubernetes.io/docs/tasks/tools, 1.28 or newer")
    return found


def run_kubectl(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [kubectl_program(), *arguments], input=given, capture_output=True, text=True, check=False
    )


def get_json(*arguments: str) -> dict[str, Any] | None:
    found = run_kubectl(*arguments, "-o", "json", "--request-timeout=30s")
    if found.returncode:
        raise ReleaseError(found.stderr.strip())
    return dict(json.loads(found.stdout)) if found.stdout.strip() else None
