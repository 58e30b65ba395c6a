"""What may import what: the contracts of pyproject.toml, and what they cannot see, tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent

IMPORT_THE_WHOLE_BLOG = """
import importlib, pkgutil, sys
import django
django.setup()
import blog_site
for module in pkgutil.walk_packages(blog_site.__path__, "blog_site."):
    importlib.import_module(module.name)
print("blog_site.urls" in sys.modules, *sorted({"torch", "onnx", "onnxruntime"} & set(sys.modules)))
"""


def test_imports_keep_to_the_contracts() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run(
        [lint_imports, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_no_module_of_the_blog_brings_torch_or_onnx_along() -> None:
    imported = subprocess.run(
        [sys.executable, "-c", IMPORT_THE_WHOLE_BLOG], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.split() == ["True"]
