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
importlib.import_module("federated.launch.kubernetes.launcher")  # which a cluster's settings have it import later
print("blog_site.urls" in sys.modules, *sorted({names} & set(sys.modules)))
"""
# What only inference and training have installed (requirements/serve.txt and train.txt), and for xxhash, which redis
# imports where it is, the module that wants it.
OF_OTHER_IMAGES = {"torch", "onnx", "onnxruntime", "numba", "matplotlib", "federated.journal"}


def test_imports_keep_to_the_contracts() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run(
        [lint_imports, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_no_module_of_the_blog_wants_what_its_image_does_not_have() -> None:
    code = IMPORT_THE_WHOLE_BLOG.format(names=OF_OTHER_IMAGES)
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.split() == ["True"]
