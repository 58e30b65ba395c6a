"""English is complete: what the sources say is in the catalogue, translated, and nothing else is."""

from __future__ import annotations

import re
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


CHINESE = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+")
COMMENTS = re.compile(r"/\*.*?\*/|<!--.*?-->|(?:^|(?<=\s))//[^\n]*", re.DOTALL | re.MULTILINE)


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


@pytest.mark.parametrize(
    "script",
    sorted(
        path
        for folder in ("static/islands", "static/js")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".js", ".mjs", ".ts", ".vue")
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_script_has_no_words_of_its_own(script: Path) -> None:
    """Its texts come with the page, which the catalogue translates."""
    assert words_of_script(script.read_text(encoding="utf-8")) == []


def words_of_script(script: str) -> list[str]:
    return CHINESE.findall(COMMENTS.sub("", script))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('const text = "好吃";', ["好吃"]),
        ("<template><p>好吃</p></template>", ["好吃"]),
        ('const address = "https://example.com/好吃";', ["好吃"]),
        ("// 好吃\n/* 好\n吃 */ run(); // 好吃", []),
        ("<!-- 好吃 --><p>{{ words.tasty }}</p>", []),
    ],
)
def test_words_are_told_from_comments(script: str, words: list[str]) -> None:
    assert words_of_script(script) == words


@pytest.mark.parametrize(
    "template", sorted((ROOT / "templates").rglob("*.html")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_relative_time_says_to_machines_when_it_was(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    times = re.findall(r"<time\b[^>]*>", text)

    assert [time for time in times if "datetime=" not in time] == []
    assert "|relative_time" not in re.sub(r"<time\b.*?</time>", "", text, flags=re.DOTALL)
