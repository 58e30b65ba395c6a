"""The islands as their sources are now; nothing is done where they are built already."""

from __future__ import annotations

import subprocess

from django.conf import settings


def build_islands() -> None:
    built = subprocess.run(
        ["infra/setup/front_end.sh", "build"], cwd=settings.BASE_DIR, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
