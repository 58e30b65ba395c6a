from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml import artifact as artifact_module
from ml.artifact import (
    FILES,
    MANIFEST,
    ArtifactError,
    WrittenArtifact,
    canonical_json,
    load_artifact,
    write_artifact,
)
from ml.predict import Predictor
from tests.ml.conftest import ROOT, TinyModel


@pytest.fixture
def copy(tiny: TinyModel, tmp_path: Path) -> WrittenArtifact:
    """A copy of the artifact that a test may damage."""
    path = tmp_path / tiny.artifact.digest
    shutil.copytree(tiny.artifact.path, path)
    return WrittenArtifact(tiny.artifact.digest, path)


def test_the_digest_names_the_manifest_and_the_manifest_names_every_file(tiny: TinyModel) -> None:
    manifest = (tiny.artifact.path / MANIFEST).read_bytes()
    assert tiny.artifact.path.name == tiny.artifact.digest == hashlib.sha256(manifest).hexdigest()
    listed = json.loads(manifest)
    assert canonical_json(listed) == manifest
    assert sorted(listed) == list(listed) == sorted(FILES)
    for name, expected in listed.items():
        content = (tiny.artifact.path / name).read_bytes()
        assert expected == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def test_what_is_written_is_what_is_read(tiny: TinyModel, tmp_path: Path) -> None:
    first = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    written = write_artifact(tmp_path, first)
    assert written == WrittenArtifact(tiny.artifact.digest, tmp_path / tiny.artifact.digest)
    second = load_artifact(written.path, written.digest)
    assert second.vocabulary == tiny.vocabulary
    assert second.network == tiny.config
    assert second.golden == first.golden
    for name, value in tiny.model.named_parameters():
        assert np.array_equal(second.weights[name], value.detach().numpy())


def test_writing_the_same_artifact_twice_does_nothing(tiny: TinyModel, tmp_path: Path) -> None:
    contents = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    first = write_artifact(tmp_path, contents)
    stamps = {entry.name: entry.stat().st_mtime_ns for entry in first.path.iterdir()}
    assert write_artifact(tmp_path, contents) == first
    assert {entry.name: entry.stat().st_mtime_ns for entry in first.path.iterdir()} == stamps
    assert [entry.name for entry in tmp_path.iterdir()] == [first.digest]


def test_several_writers_of_one_artifact_leave_one_whole_artifact(tiny: TinyModel, tmp_path: Path) -> None:
    contents = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    barrier, failures = threading.Barrier(4), []

    def write() -> None:
        barrier.wait()
        try:
            write_artifact(tmp_path, contents)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [entry.name for entry in tmp_path.iterdir()] == [tiny.artifact.digest]
    load_artifact(tmp_path / tiny.artifact.digest, tiny.artifact.digest)


def test_other_weights_have_another_digest(tiny: TinyModel, tmp_path: Path) -> None:
    contents = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    weights = {**contents.weights, "output.bias": contents.weights["output.bias"] + np.float32(1e-6)}
    assert write_artifact(tmp_path, replace(contents, weights=weights)).digest != tiny.artifact.digest


def test_an_artifact_can_be_read_by_other_users(tiny: TinyModel) -> None:
    assert stat.S_IMODE(tiny.artifact.path.stat().st_mode) & 0o055 == 0o055


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_truncated_file_is_refused_by_name(copy: WrittenArtifact, name: str) -> None:
    path = copy.path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=name) as caught:
        load_artifact(copy.path, copy.digest)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_single_changed_bit_is_refused_by_name(copy: WrittenArtifact, name: str) -> None:
    path = copy.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}: its sha256 is [0-9a-f]+, expected"):
        load_artifact(copy.path, copy.digest)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_refused_by_name(copy: WrittenArtifact, name: str) -> None:
    (copy.path / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: missing"):
        load_artifact(copy.path, copy.digest)


def test_a_file_that_does_not_belong_is_refused_by_name(copy: WrittenArtifact) -> None:
    (copy.path / "extra.pkl").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"extra\.pkl: not part of the artifact"):
        load_artifact(copy.path, copy.digest)


def test_a_folder_in_the_place_of_a_file_is_refused(copy: WrittenArtifact) -> None:
    (copy.path / "model.onnx").unlink()
    (copy.path / "model.onnx").mkdir()
    with pytest.raises(ArtifactError, match=r"model\.onnx: cannot be read"):
        load_artifact(copy.path, copy.digest)


def test_an_artifact_that_is_not_there_or_not_the_one_asked_for_is_refused(
    copy: WrittenArtifact, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: missing"):
        load_artifact(tmp_path / "nothing", copy.digest)
    with pytest.raises(ArtifactError, match=f"expected {'0' * 64}"):
        load_artifact(copy.path, "0" * 64)


@pytest.mark.parametrize(
    "manifest", [{}, {"config.json": {"sha256": "", "size_bytes": 0}}, [], {"../../etc/passwd": {}}]
)
def test_a_manifest_with_the_right_digest_but_other_files_is_refused(
    tmp_path: Path, manifest: object
) -> None:
    content = canonical_json(manifest)
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: lists"):
        load_artifact(tmp_path, hashlib.sha256(content).hexdigest())


def write_files(folder: Path, files: dict[str, bytes]) -> str:
    """Write files and a manifest that fits them; gives its digest."""
    manifest = canonical_json(
        {n: {"sha256": hashlib.sha256(c).hexdigest(), "size_bytes": len(c)} for n, c in files.items()}
    )
    for name, content in {**files, MANIFEST: manifest}.items():
        (folder / name).write_bytes(content)
    return hashlib.sha256(manifest).hexdigest()


def read_files(artifact: WrittenArtifact) -> dict[str, bytes]:
    return {name: (artifact.path / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("name", ["config.json", "golden.json", "parity.json", "vocabulary.json"])
@pytest.mark.parametrize("content", [b"\x80\x04 a pickle", b"[7]", b"7"])
def test_whole_files_that_make_no_sense_are_refused(
    tiny: TinyModel, tmp_path: Path, name: str, content: bytes
) -> None:
    digest = write_files(tmp_path, {**read_files(tiny.artifact), name: content})
    with pytest.raises(ArtifactError, match="cannot be understood"):
        load_artifact(tmp_path, digest)


@pytest.mark.parametrize("number", [None, 1, 4, "2"])
def test_an_artifact_of_another_format_is_refused_and_what_to_do_is_said(
    tiny: TinyModel, tmp_path: Path, number: object
) -> None:
    files = read_files(tiny.artifact)
    config = json.loads(files["config.json"])
    del config["format"]
    if number is not None:
        config["format"] = number
    digest = write_files(tmp_path, {**files, "config.json": canonical_json(config)})
    found = 1 if number is None else number
    with pytest.raises(
        ArtifactError, match=rf"of format {found!r}, and this version reads formats 2 and 3: train or export"
    ):
        load_artifact(tmp_path, digest)


def test_weights_are_read_when_they_are_asked_for_and_not_before(tiny: TinyModel, tmp_path: Path) -> None:
    digest = write_files(tmp_path, {**read_files(tiny.artifact), "weights.safetensors": b"\x80\x04 a pickle"})
    artifact = load_artifact(tmp_path, digest)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: whole, but cannot be understood"):
        artifact.weights["output.bias"]
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: whole, but cannot be understood"):
        Predictor(artifact)  # the wide part is in them


def test_weights_are_found_by_name_and_only_those_there_are(tiny: TinyModel) -> None:
    weights = load_artifact(tiny.artifact.path, tiny.artifact.digest).weights
    assert "output.bias" in weights
    assert "wide.bias" not in weights
    with pytest.raises(KeyError, match=r"wide\.bias"):
        weights["wide.bias"]
    assert sorted(weights) == sorted(dict(weights))
    assert len(weights) == len(dict(weights))


def test_weights_that_change_before_they_are_asked_for_are_refused(copy: WrittenArtifact) -> None:
    artifact = load_artifact(copy.path, copy.digest)
    path = copy.path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: its sha256 is"):
        dict(artifact.weights)


def test_writing_over_a_damaged_artifact_says_so(copy: WrittenArtifact, tiny: TinyModel) -> None:
    contents = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    (copy.path / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"model\.onnx: has 0 bytes"):
        write_artifact(copy.path.parent, contents)


def test_a_process_whose_disk_is_full_leaves_nothing_behind(tiny: TinyModel, tmp_path: Path) -> None:
    """The kernel itself refuses the write: files may not grow beyond a limit between two of the artifact's files."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        from ml.artifact import ArtifactError, load_artifact, write_artifact
        contents = load_artifact(Path(sys.argv[1]), sys.argv[2])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            write_artifact(Path(sys.argv[3]), contents)
        except ArtifactError as error:
            print(error)
    """
    arguments = [str(tiny.artifact.path), tiny.artifact.digest, str(tmp_path / "artifacts")]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "cannot be written: File too large; free disk space" in result.stdout, result.stderr
    assert list((tmp_path / "artifacts").iterdir()) == []


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_whichever_step_finds_the_disk_full_nothing_is_left_and_a_retry_succeeds(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    loaded = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    contents = replace(loaded, weights=dict(loaded.weights))  # read, before no file can be opened

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if step == "write":
            patched.setattr(Path, "open", fail)
        elif step == "sync":
            patched.setattr(artifact_module.os, "fsync", fail)
        else:
            patched.setattr(artifact_module.os, "replace", fail)
        with pytest.raises(ArtifactError, match="No space left on device"):
            write_artifact(tmp_path, contents)
    assert list(tmp_path.iterdir()) == []
    assert write_artifact(tmp_path, contents).digest == tiny.artifact.digest


def test_a_writer_killed_half_way_leaves_no_artifact_of_that_name(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    visible: list[bool] = []
    real = os.fsync

    def look(descriptor: int) -> None:
        visible.append((tmp_path / tiny.artifact.digest).exists())
        real(descriptor)

    monkeypatch.setattr(artifact_module.os, "fsync", look)
    write_artifact(tmp_path, contents)
    # Every file and their folder are on the disk before the name appears; the last sync is of the name itself.
    assert visible == [False] * (len(FILES) + 2) + [True]
