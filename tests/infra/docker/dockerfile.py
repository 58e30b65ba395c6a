"""The Dockerfile as stages of instructions, so that tests can ask what holds for each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
SHIPPED = ("web", "gateway", "inference", "trainer", "local-worker")


@dataclass(frozen=True)
class Instruction:
    word: str  # FROM, RUN, COPY …
    rest: str


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all_of(self, word: str) -> list[str]:
        return [each.rest for each in self.instructions if each.word == word]


def read_stages(path: Path = DOCKERFILE) -> tuple[dict[str, str], dict[str, Stage]]:
    """Give the arguments before the first FROM with their defaults, and the stages by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    instructions = [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    name = base = ""
    collected: list[Instruction] = []
    for each in [*instructions, Instruction("FROM", "end AS end")]:
        if each.word == "FROM":
            if name:
                stages[name] = Stage(name, base, tuple(collected))
            base, _as, name = each.rest.split()
            collected = []
        elif name:
            collected.append(each)
        else:
            key, _, default = each.rest.partition("=")
            arguments[key] = default
    return arguments, stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage and those it is built on, itself first."""
    found = []
    while name in stages:
        found.append(stages[name])
        name = stages[name].base
    return found
