from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from federated import bench
from federated.flower_bench import (
    DEPLOYMENT,
    FLOWER_BIN,
    SIMULATION,
    Engine,
    FlowerFailed,
    is_installed,
    measure_engine,
    measure_flower,
)
from federated.protocol import Tensors

needs_flower = pytest.mark.skipif(
    not is_installed(), reason="Flower is not installed: make bench-flower-setup"
)


@pytest.fixture
def gradients() -> list[Tensors]:
    return [{"embedding.weight": np.full((40, 8), 0.01 * site, np.float32)} for site in range(1, 3)]


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Flower's folders are made; not `tmp_path`, which is too long for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="hs-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def processes_below(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME", "").startswith(str(folder)):
                found.append(process)
    return found


def test_without_flower_there_is_no_figure(
    tmp_path: Path, gradients: list[Tensors], capfd: pytest.CaptureFixture[str]
) -> None:
    assert measure_flower(gradients, tmp_path / "absent") is None
    assert capfd.readouterr() == ("", "")


def test_an_engine_that_cannot_be_measured_is_null_and_stderr_says_why(
    tmp_path: Path, gradients: list[Tensors], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "python").touch()  # an installation that was interrupted
    assert measure_flower(gradients, tmp_path) == {"simulation": None, "deployment": None}
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(" could not be measured: ")[0] for line in lines] == [
        "Flower's simulation engine",
        "Flower's deployment engine",
    ]
    assert "flower-superlink" in lines[0]


def test_flower_gets_the_gradients_that_our_own_sites_send() -> None:
    gradients = bench.make_gradients()
    assert len(gradients) == bench.SITES
    assert {sum(value.size for value in gradient.values()) for gradient in gradients} == {
        bench.count_parameters()
    }


@needs_flower
def test_the_simulation_engine_is_measured_and_leaves_nothing_running(
    scratch: Path, gradients: list[Tensors]
) -> None:
    engine = replace(SIMULATION, rounds=1, warm_up_rounds=1)
    assert 0 < measure_engine(engine, gradients, FLOWER_BIN) < 60
    assert processes_below(scratch) == []
    assert list(scratch.iterdir()) == []


@needs_flower
@pytest.mark.parametrize("engine", [SIMULATION, DEPLOYMENT], ids=lambda engine: engine.name)
def test_an_engine_that_takes_too_long_is_ended_with_all_its_processes(
    engine: Engine, scratch: Path, gradients: list[Tensors]
) -> None:
    with pytest.raises(FlowerFailed, match="no result within 4 s"):
        measure_engine(replace(engine, limit_seconds=4), gradients, FLOWER_BIN)
    assert processes_below(scratch) == []
    assert list(scratch.iterdir()) == []
