"""`python -m ml.predict`, much of it as a process of its own."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from ml.export import export_artifact
from ml.label_set import LABELS
from ml.model import initial_parameters
from ml.model_config import FIRST_NETWORK
from ml.predict_command import main
from ml.tokenizer import TokenizerSettings
from ml.vocabulary import RESERVED, Vocabulary
from tests.ml.conftest import ROOT, Store, TinyModel
from tests.servers import wait_until

COMMAND = [sys.executable, "-m", "ml.predict"]


@pytest.fixture
def champion(store: Store, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose champion the environment leads to."""
    store.point_at(tiny.artifact.digest)
    monkeypatch.setenv("ARTIFACT_STORE_URL", store.path.as_uri())
    return store


@pytest.fixture
def _heeds_interrupts() -> Iterator[None]:
    """As a terminal starts a process; what is started in the background may ignore Ctrl-C from its birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def predict_stdin(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--file", "-", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_the_champion_answers_and_each_text_gets_a_line(
    champion: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["很好看", "太差了"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["很好看", "太差了"]
    assert all(line.split()[0] in LABELS for line in lines)


def test_an_artifact_may_be_named_and_so_may_a_store(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, capsys: pytest.CaptureFixture[str]
) -> None:
    store.add(other_tiny.artifact)
    store.point_at(other_tiny.artifact.digest)
    outputs = []
    for arguments in (
        ["--artifact", str(tiny.artifact.path)],
        ["--store", store.path.as_uri()],
        ["--artifact", str(other_tiny.artifact.path)],
    ):
        assert main([*arguments, "很好看", "物流很慢"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[1] == outputs[2] != outputs[0]


def test_without_a_champion_what_to_do_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTIFACT_STORE_URL", (tmp_path / "nothing").as_uri())
    assert main(["很好看"]) == 1
    message = capsys.readouterr().err
    assert str(tmp_path / "nothing" / "champion.json") in message
    assert "`make demo` trains and promotes one" in message
    assert "--artifact" in message


def test_a_process_answers_with_the_champion_of_the_store_that_the_environment_names(champion: Store) -> None:
    result = subprocess.run([*COMMAND, "很好看", b"\xff"], cwd=ROOT, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode().splitlines()[0].endswith("很好看")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the most that a process has held")
def test_a_process_that_holds_a_model_of_the_demos_size_stays_below_200_mb(tmp_path: Path) -> None:
    vocabulary = Vocabulary([*RESERVED, *(f"词{number}" for number in range(20_000))])
    config = replace(FIRST_NETWORK, vocabulary_size=len(vocabulary))
    written = export_artifact(
        tmp_path,
        weights={name: value.numpy() for name, value in initial_parameters(config, seed=1).items()},
        config=config,
        tokenizer=TokenizerSettings(),
        vocabulary=vocabulary,
        max_length=128,
    )
    code = """
        import sys
        from pathlib import Path
        from ml.predict_command import main
        texts = ["这本书很好看，" * 20] * 200
        assert main(["--device", "cpu", "--artifact", sys.argv[1], *texts]) == 0
        status = Path("/proc/self/status").read_text().splitlines()
        print(*(line.split()[1] for line in status if line.startswith("VmHWM:")))
        print(*{"torch", "onnx", "rich", "fastapi"} & set(sys.modules))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(written.path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    largest_kib, unneeded = result.stdout.splitlines()[-2:]
    assert int(largest_kib) < 200 * 1024
    assert unneeded == ""


def test_a_file_becomes_a_csv_in_the_same_order(
    champion: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"第{number}条，很好" + "好" * (number % 9) for number in range(2500)]
    texts += ["", '有,逗号和"引号"', "a\u2028b\x0bc", ""]
    source, target = tmp_path / "in.txt", tmp_path / "out.csv"
    source.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode() + b"\r\n")
    assert main(["--file", str(source), "--out", str(target)]) == 0
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert {row["label"] for row in rows} <= set(LABELS)
    assert all(float(row["score"]) == max(float(row[label]) for label in LABELS) for row in rows)
    assert target.stat().st_mode & 0o444 == 0o444
    assert "predicting" in capsys.readouterr().err
    assert main(["--file", str(source)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "text,label,score,negative,neutral,positive"


def test_a_file_is_read_while_it_is_answered(champion: Store) -> None:
    """What comes in through a pipe is answered before the pipe ends, so it is nowhere held as a whole."""
    with predict_stdin() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("很好\n".encode() * 3000)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"text,label")
        answered = sum(1 for _ in zip(range(1000), process.stdout, strict=False))
        assert answered == 1000
        assert process.poll() is None
        process.stdin.close()
        rest = process.stdout.read()
    assert process.returncode == 0
    assert answered + len(rest.splitlines()) == 3000


@pytest.mark.usefixtures("_heeds_interrupts")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_what_was_there_and_nothing_else(
    champion: Store, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    target = folder / "out.csv"
    target.write_text("of yesterday")
    with predict_stdin("--out", str(target)) as process:
        assert process.stdin is not None
        process.stdin.write("很好\n".encode() * 5000)
        process.stdin.flush()
        wait_until(lambda: any(entry.stat().st_size > 1000 for entry in folder.glob(".*")), "half an output")
        assert target.read_text() == "of yesterday"
        process.send_signal(sent)
        _output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert b"Traceback" not in errors
    assert {entry.name: entry.read_text() for entry in folder.iterdir()} == {"out.csv": "of yesterday"}


def test_a_line_that_is_not_utf_8_is_named_and_no_output_is_left(
    champion: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "results" / "out.csv"
    target.parent.mkdir()
    source.write_bytes("很好\n".encode() * 2000 + "很好\n".encode("gb18030"))
    assert main(["--file", str(source), "--out", str(target)]) == 1
    assert "in.txt, line 2001: not UTF-8" in capsys.readouterr().err
    assert list(target.parent.iterdir()) == []


def test_a_link_stays_a_link_and_a_pipe_a_pipe(champion: Store, tmp_path: Path) -> None:
    source, behind, link = (tmp_path / name for name in ("in.txt", "behind.csv", "link.csv"))
    source.write_text("很好\n", encoding="utf-8")
    link.symlink_to(behind)
    assert main(["--file", str(source), "--out", str(link)]) == 0
    assert link.is_symlink()
    assert behind.read_text(encoding="utf-8").startswith("text,label")
    assert main(["--file", str(source), "--out", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_a_reader_that_has_seen_enough_is_no_error_to_report(champion: Store) -> None:
    with predict_stdin() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("很好\n".encode() * 3000)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("很好\n".encode() * 3000)
        process.stdin.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"rror" not in errors


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Give texts, or --file"),
        (["--file", "a.txt", "text"], 2, "Give texts, or --file"),
        (["--file", "/nowhere/a.txt"], 1, "/nowhere/a.txt"),
        (["--digest", "0" * 64, "text"], 1, "expected 0000"),
    ],
)
def test_the_command_says_what_is_wrong(
    tiny: TinyModel, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert main(["--artifact", str(tiny.artifact.path), *arguments]) == status
    assert message in capsys.readouterr().err


def test_a_store_of_a_kind_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", "ftp://elsewhere/store", "text"]) == 1
    assert "'ftp://elsewhere/store'" in capsys.readouterr().err


def test_an_explicit_device_is_used_or_refused_and_auto_takes_what_there_is(
    champion: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert main(["--device", "cuda", "很好看"]) == (0 if there else 1)
    assert there or "device cuda cannot be used" in capsys.readouterr().err
    for device in ("auto", "cpu"):
        assert main(["--device", device, "很好看"]) == 0
