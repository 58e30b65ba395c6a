"""What an experiment has finished, kept on disk, so that an interrupted one goes on with the stage it was in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from federated.store import write_whole
from ml.artifact import canonical_json

PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
# The files whose text, beside the settings, decides what a training ends with.
TRAINING_SOURCES: Final = (
    "ml/*.py",
    "federated/averaging.py",
    "federated/encoding.py",
    "federated/simulation.py",
    "federated/strategies.py",
)

Outcome = dict[str, Any]


@dataclass
class Stages:
    """A folder of outcomes, each named by its stage and a digest of all the settings that it depends on."""

    folder: Path
    kept: list[str] = field(default_factory=list)  # stages that were finished before
    outdated: list[str] = field(default_factory=list)  # those of them that other source files have made

    def path(self, stage: str, settings: Mapping[str, Any], ending: str = ".json") -> Path:
        """Give where a file of a stage lies, whether it is there or not."""
        return self.folder / f"{stage}-{settings_digest(settings)}{ending}"

    def finish(
        self,
        stage: str,
        settings: Mapping[str, Any],
        make: Callable[[], Outcome],
        sources: Sequence[str] = TRAINING_SOURCES,
    ) -> Outcome:
        """Give a stage's outcome, making it unless it was made before; `sources` are patterns of files."""
        path, written_by = self.path(stage, settings), sources_digest(sources)
        if path.exists():
            document = json.loads(path.read_text(encoding="utf-8"))
            self.kept.append(stage)
            if document["sources"] != written_by:
                self.outdated.append(stage)
            outcome: Outcome = document["outcome"]
            return outcome
        outcome = make()
        document = {
            "stage": stage,
            "settings": dict(settings),
            "sources": written_by,
            "outcome": outcome,
        }
        write_whole(path, json.dumps(document, ensure_ascii=False, indent=1).encode())
        return outcome


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Name settings by their content, in 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(settings)).hexdigest()[:16]


def sources_digest(patterns: Sequence[str]) -> str:
    """Name source files by their content."""
    digest = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(PACKAGE_ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
