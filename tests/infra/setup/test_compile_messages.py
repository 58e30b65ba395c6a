from __future__ import annotations

import gettext
from pathlib import Path

import pytest
from babel.messages.pofile import PoFileError

from infra.setup.compile_messages import compile_messages

SIGN_IN, SIGN_UP = "登录", "注册"
ARTICLES = "%(n)s 篇"  # by name below: `make messages` collects what it finds written inside a call
PO = """msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

msgid "登录"
msgstr "Sign in"

msgid "%(n)s 篇"
msgid_plural "%(n)s 篇"
msgstr[0] "%(n)s article"
msgstr[1] "%(n)s articles"

#, fuzzy
msgid "注册"
msgstr "Sing up"
"""


def write_po(folder: Path, text: str) -> None:
    place = folder / "en" / "LC_MESSAGES"
    place.mkdir(parents=True)
    (place / "django.po").write_text(text, encoding="utf-8")


def test_compiled_messages_are_read_by_gettext(tmp_path: Path) -> None:
    write_po(tmp_path, PO)

    (made,) = compile_messages(tmp_path)

    assert made == tmp_path / "en" / "LC_MESSAGES" / "django.mo"
    english = gettext.translation("django", tmp_path, ["en"])
    assert english.gettext(SIGN_IN) == "Sign in"
    assert english.ngettext(ARTICLES, ARTICLES, 2) == "%(n)s articles"
    assert english.gettext(SIGN_UP) == SIGN_UP, "a fuzzy guess must not reach a reader"


def test_a_broken_file_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    write_po(tmp_path, PO)
    (made,) = compile_messages(tmp_path)
    before = made.read_bytes()
    (tmp_path / "en" / "LC_MESSAGES" / "django.po").write_text(PO + "\nnot a catalogue\n", encoding="utf-8")

    with pytest.raises(PoFileError):
        compile_messages(tmp_path)

    assert made.read_bytes() == before
    assert [path.name for path in made.parent.iterdir() if path.suffix not in (".po", ".mo")] == []
