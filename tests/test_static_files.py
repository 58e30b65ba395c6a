from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.core.management import call_command
from django.template import Context, Template
from django.test import Client

pytestmark = pytest.mark.once

# As Vite writes them: an entry, what it shares with others, and the styles of both.
MANIFEST = {
    "_vue.js": {"file": "vue.0123456789ab.js", "name": "vue", "imports": ["_base.js"]},
    "_base.js": {"file": "base.111111111111.js", "css": ["base.222222222222.css"]},
    "static/islands/comments.js": {
        "file": "comments.ba9876543210.js",
        "isEntry": True,
        "imports": ["_vue.js"],
        "css": ["comments.abcdefabcdef.css"],
    },
}
LINKS = (
    '<link rel="stylesheet" href="/static/built/base.222222222222.css">'
    '<link rel="stylesheet" href="/static/built/comments.abcdefabcdef.css">'
    '<link rel="modulepreload" href="/static/built/vue.0123456789ab.js">'
    '<link rel="modulepreload" href="/static/built/base.111111111111.js">'
    '<script type="module" src="/static/built/comments.ba9876543210.js"></script>'
)


@pytest.fixture
def sources(tmp_path: Path, settings) -> Path:
    """A folder of static files with islands that are built."""
    folder = tmp_path / "sources"
    built = folder / "built"
    built.mkdir(parents=True)
    (folder / "islands").mkdir()
    (folder / "islands" / "comments.js").write_text("import './Comments.vue'", encoding="utf-8")
    (folder / "plain.css").write_text("a { color: red }", encoding="utf-8")
    (built / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    for part in MANIFEST.values():
        for name in [part["file"], *part.get("css", [])]:
            (built / name).write_text("/* built */" * 100, encoding="utf-8")
    settings.STATICFILES_DIRS = [folder]
    settings.STATICFILES_FINDERS = settings.STATICFILES_FINDERS[:1]  # not the admin's hundreds
    settings.STATIC_ROOT = tmp_path / "collected"
    settings.ISLANDS_MANIFEST = built / "manifest.json"
    return folder


@pytest.fixture
def deployed(sources: Path, settings) -> Path:
    """The same, collected as for production."""
    settings.DEBUG = False
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "blog_site.static_files.DigestNamesStorage"}
    }
    call_command("collectstatic", "--no-input", verbosity=0)
    return settings.STATIC_ROOT


def render(name: str = "comments") -> str:
    return Template("{% load islands %}{% island name %}").render(Context({"name": name}))


def test_an_island_brings_its_styles_what_it_imports_and_itself(sources: Path) -> None:
    assert render() == LINKS


def test_files_that_are_named_by_digest_keep_their_names_when_they_are_collected(deployed: Path) -> None:
    assert render() == LINKS
    collected = {path.name for path in (deployed / "built").iterdir()}
    assert {"vue.0123456789ab.js", "vue.0123456789ab.js.gz", "comments.abcdefabcdef.css.gz"} <= collected
    assert not [name for name in collected if re.search(r"(\.[0-9a-f]{12}){2}", name)]
    assert re.fullmatch(r"plain\.[0-9a-f]{12}\.css", next(deployed.glob("plain.*.css")).name)


def test_neither_the_sources_of_islands_nor_their_manifest_are_published(deployed: Path) -> None:
    assert not (deployed / "islands").exists()
    assert not list(deployed.rglob("manifest*.json"))


@pytest.mark.django_db  # an answer that ends looks after the connections
@pytest.mark.parametrize(
    ("path", "lifetime"),
    [
        ("built/vue.0123456789ab.js", "max-age=315360000, public, immutable"),
        ("plain.css", "max-age=60, public"),
    ],
)
def test_a_name_with_a_digest_may_be_kept_for_ever(
    deployed: Path, client: Client, path: str, lifetime: str
) -> None:
    answer = client.get(f"/static/{path}")
    assert (answer.status_code, answer["Cache-Control"]) == (200, lifetime)
    answer.close()


def test_an_island_that_is_not_built_leaves_no_trace(sources: Path) -> None:
    assert render("unknown") == ""
    (sources / "built" / "manifest.json").unlink()
    assert render() == ""


def test_an_island_built_anew_is_found_without_a_restart(sources: Path) -> None:
    assert "ba9876543210" in render()
    built = MANIFEST | {"static/islands/comments.js": {"file": "comments.cccccccccccc.js"}}
    (sources / "built" / "manifest.json").write_text(json.dumps(built), encoding="utf-8")
    assert render() == '<script type="module" src="/static/built/comments.cccccccccccc.js"></script>'


def test_an_island_that_is_not_collected_yet_does_not_break_the_page(deployed: Path, settings) -> None:
    built = MANIFEST | {"static/islands/comments.js": {"file": "comments.cccccccccccc.js"}}
    settings.ISLANDS_MANIFEST.write_text(json.dumps(built), encoding="utf-8")
    assert render() == ""
