"""English is complete: what the sources say is in the catalogue, translated, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("blog_site", "templates", "ml", "federated", "manage.py")
COMMITTED = ROOT / "locale" / "en" / "LC_MESSAGES" / "django.po"


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """What makemessages finds in a copy of the sources, so that the checkout stays as it is."""
    if shutil.which("xgettext") is None:
        pytest.fail("xgettext is not installed: `make setup-test` installs gettext, or install it yourself")
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "content", "node_modules")
            )
        else:
            shutil.copy(source, copy / name)
    (copy / "locale").mkdir()
    options = ["--locale", "en", "--no-location", "--settings", "blog_site.settings", "--pythonpath", "."]
    subprocess.run(
        [sys.executable, "-m", "django", "makemessages", *options], cwd=copy, check=True, timeout=120
    )
    return parse(copy / "locale" / "en" / "LC_MESSAGES" / "django.po")


@pytest.fixture(scope="module")
def committed() -> Catalog:
    return parse(COMMITTED)


def parse(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale="en")


def keys(catalog: Catalog) -> set[tuple[object, object]]:
    return {(message.context, message.id) for message in catalog if message.id}


def test_the_catalogue_has_exactly_the_texts_of_the_sources(extracted: Catalog, committed: Catalog) -> None:
    assert keys(extracted) - keys(committed) == set(), "run `make messages` and translate what it adds"
    assert keys(committed) - keys(extracted) == set(), "run `make messages`: these are no longer used"


def test_every_text_has_an_english_translation(committed: Catalog) -> None:
    untranslated = [
        message.id
        for message in committed
        if message.id and not all([message.string] if isinstance(message.string, str) else message.string)
    ]

    assert untranslated == []


def test_no_translation_is_only_a_guess(committed: Catalog) -> None:
    assert [message.id for message in committed if message.id and message.fuzzy] == []


def test_placeholders_survive_translation() -> None:
    checked = subprocess.run(
        ["msgfmt", "--check-format", "--output-file", "/dev/null", str(COMMITTED)],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert checked.returncode == 0, checked.stderr
