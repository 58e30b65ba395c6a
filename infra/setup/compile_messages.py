"""Compile translations without gettext: `python -m infra.setup.compile_messages` makes a .mo of every .po."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po

LOCALE_FOLDER = Path(__file__).resolve().parents[2] / "locale"


def compile_messages(folder: Path = LOCALE_FOLDER) -> list[Path]:
    """Compile each `<language>/LC_MESSAGES/*.po` beside itself and give the files made.

    A file appears whole or not at all: a server may be reading the old one. Raises PoFileError for a broken file.
    """
    return [_compile(path) for path in sorted(folder.glob("*/LC_MESSAGES/*.po"))]


def _compile(source: Path) -> Path:
    language = source.parents[1].name
    with source.open("rb") as file:
        catalog = read_po(file, locale=language, domain=source.stem, abort_invalid=True)
    compiled = source.with_suffix(".mo")
    unfinished = compiled.with_name(f".{compiled.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        write_mo(file, catalog)
    unfinished.replace(compiled)
    return compiled


def main() -> None:
    try:
        made = compile_messages()
    except PoFileError as error:
        sys.exit(f"a translation file is broken: {error}")
    for path in made:
        print(f"compiled {path.relative_to(LOCALE_FOLDER.parent)}")


if __name__ == "__main__":
    main()
