"""The journal: what was written is read, and what was being written when the process died is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federated.journal import Journal, JournalError
from federated.protocol import Tensors, mend_last_line


def gradient(number: int) -> Tensors:
    return {"output.bias": np.full(3, number, np.float32), "embedding.weight": np.eye(4, 2, dtype=np.float32)}


def open_journal(folder: Path, rounds: int) -> Journal:
    """A journal that its aggregator is writing."""
    journal = Journal(folder)
    journal.write_checkpoint({"round": 0}, gradient(0))
    for number in range(1, rounds + 1):
        journal.append({"number": number}, gradient(number))
    return journal


def written(folder: Path, rounds: int) -> Journal:
    """The same, when its aggregator is gone."""
    journal = open_journal(folder, rounds)
    journal.close()
    return journal


def numbers(journal: Journal) -> list[int]:
    return [entry.record["number"] for entry in journal.read_rounds()]


def test_rounds_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert not Journal(tmp_path).exists()
    written(tmp_path, 3)
    journal = Journal(tmp_path)
    assert journal.exists()
    header, state = journal.read_checkpoint()
    assert header == {"round": 0}
    assert np.array_equal(state["output.bias"], np.zeros(3))
    entries = list(journal.read_rounds())
    assert [entry.record["number"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        for name, value in gradient(entry.record["number"]).items():
            assert np.array_equal(entry.gradient[name], value)


@pytest.mark.parametrize("missing_bytes", [1, 10, 100, "all but the frame", "part of the frame"])
def test_a_round_that_was_being_written_is_cut_off_and_the_next_follows_the_last_whole_one(
    tmp_path: Path, missing_bytes: int | str
) -> None:
    path = tmp_path / "rounds.journal"
    written(tmp_path, 2)
    whole = path.stat().st_size
    journal = written(tmp_path, 2)
    journal.append({"number": 3}, gradient(3))
    journal.close()
    length = path.stat().st_size
    keep = {"all but the frame": whole + 16, "part of the frame": whole + 5}
    size = keep[missing_bytes] if isinstance(missing_bytes, str) else length - missing_bytes
    with path.open("r+b") as file:
        file.truncate(size)

    journal = Journal(tmp_path)
    assert numbers(journal) == [1, 2]
    assert path.stat().st_size == whole
    journal.append({"number": 3}, gradient(3))
    assert numbers(journal) == [1, 2, 3]


def test_a_damaged_round_and_what_follows_it_are_not_believed(tmp_path: Path) -> None:
    written(tmp_path, 3)
    path = tmp_path / "rounds.journal"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # within the second
    path.write_bytes(bytes(content))
    assert numbers(Journal(tmp_path)) == [1]


def test_a_checkpoint_takes_the_place_of_the_rounds_before_it(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, 3)
    size = (tmp_path / "rounds.journal").stat().st_size
    journal.write_checkpoint({"round": 3}, gradient(3))
    journal.append({"number": 4}, gradient(4))
    journal.close()
    assert (tmp_path / "rounds.journal").stat().st_size == size, "written over the first, into the same file"
    assert Journal(tmp_path).read_checkpoint()[0] == {"round": 3}
    first, *others = numbers(Journal(tmp_path))
    assert first == 4
    assert all(number <= 3 for number in others), "which the checkpoint holds already"


def test_a_journal_is_long_when_it_has_grown_to_several_checkpoints(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, 1)
    asked = 1
    while not journal.is_long():
        asked += 1
        journal.append({"number": asked}, gradient(asked))
    checkpoint, rounds = (tmp_path / name for name in ("checkpoint.safetensors", "rounds.journal"))
    assert 4 < rounds.stat().st_size / checkpoint.stat().st_size < 6
    journal.write_checkpoint({"round": asked}, gradient(asked))
    journal.append({"number": asked + 1}, gradient(asked + 1))
    is_long = journal.is_long()
    journal.close()
    assert not is_long, "it is written over from the beginning"


def test_rounds_follow_what_an_earlier_checkpoint_left_behind(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, 3)
    journal.write_checkpoint({"round": 3}, gradient(3))
    journal.append({"number": 4, "long": "x" * 50}, gradient(4))  # ends amid the second of the earlier rounds
    journal.close()
    again = Journal(tmp_path)
    assert numbers(again) == [4]
    again.append({"number": 5}, gradient(5))
    again.close()
    assert numbers(Journal(tmp_path)) == [4, 5]


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 64])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(JournalError, match="checkpoint.safetensors: .*start another run"):
        Journal(tmp_path).read_checkpoint()


@pytest.mark.parametrize(("before", "after"), [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("b", "")])
def test_a_half_line_is_cut_off(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "diary"
    mend_last_line(path)
    path.write_text(before)
    mend_last_line(path)
    assert path.read_text() == after
