"""The commands of docs/operations.md, as its fenced blocks hold them.

The word after `sh` says who runs a block's commands: `looks` (nothing changes: `make e2e` runs each as it is written),
`e2e` (a test of tests/e2e does the same), `test` (a test of the tree does).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

MANUAL = Path(__file__).resolve().parents[1] / "docs" / "operations.md"
LOOKS, E2E, TEST = "looks", "e2e", "test"
KINDS = (LOOKS, E2E, TEST)


@dataclass(frozen=True)
class Command:
    """One command, its lines joined, its comment taken away."""

    kind: str
    text: str
    line: int

    def words(self) -> list[str]:
        """As a shell would split it."""
        return shlex.split(self.text, comments=True)


def read_operations(path: Path = MANUAL) -> list[Command]:
    """Read the commands of a manual. Raises ValueError for a block that nobody is said to run."""
    commands, kind, unfinished = [], "", ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if fence := re.fullmatch(r"```(.*)", line):
            kind = "" if kind else fence[1] or "none"
            if kind.startswith("sh") and kind.removeprefix("sh ") not in KINDS:
                raise ValueError(f"{path.name}:{number}: ```{kind}: say ```sh and one of {', '.join(KINDS)}")
            continue
        if not kind.startswith("sh ") or not (unfinished or line.strip()) or line.startswith("#"):
            continue
        unfinished += line.strip()
        if unfinished.endswith("\\"):
            unfinished = unfinished[:-1]
            continue
        commands.append(Command(kind.removeprefix("sh "), re.sub(r"\s+#\s.*$", "", unfinished), number))
        unfinished = ""
    return commands
