"""Real runs over tiny shards: three sites, a store and a launcher in a folder, and one run that everyone may read."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import federated.launch.local
from federated.launch.local import LocalLauncher
from federated.protocol import RunSpec, RunStatus, SiteSpec
from federated.store import FolderStore, open_store
from tests.federated.forked import start_forked_process

# Each site speaks of its own things, in the same words of praise and blame.
SUBJECTS = {
    "food": ("这家的面条", "招牌红烧肉", "老板娘的汤圆", "楼下的烧烤", "外卖的米饭", "店里的豆浆"),
    "books": ("这本小说", "作者的文笔", "新版的翻译", "书里的插图", "最后的结局", "封面的印刷"),
    "travel": ("酒店的房间", "导游的讲解", "海边的风景", "机场的服务", "古城的夜市", "山顶的日出"),
}
VERDICTS = {
    "positive": ("真的很好", "让人喜欢", "非常满意", "值得推荐", "相当精彩"),
    "negative": ("实在太差", "让人讨厌", "非常失望", "不值一提", "相当糟糕"),
}
# A twentieth of the usual one: what is joined, checkpointed and published is what takes a run's time, not its rounds.
NETWORK = {"embedding_dim": 32, "hidden_dim": 32, "subword_buckets": 2**9, "gram_buckets": 2**13}
TRAIN_SAMPLES = {"food": 60, "books": 48, "travel": 36}  # of different sizes, so that weights matter
SITES = tuple(SUBJECTS)
SECRET = "makes the tokens of the tests"


def write_reviews(site: str, ending: str, count: int, verdicts: int = 5) -> list[dict[str, str]]:
    """`count` distinct reviews, both classes in turn, ending in `ending`."""
    reviews = [
        {"text": f"{subject}{VERDICTS[label][index]}{ending}", "label": label, "site": site}
        for index, subject, label in itertools.product(range(verdicts), SUBJECTS[site], VERDICTS)
    ]
    return reviews[:count]


def in_round(number: int, status: RunStatus) -> bool:
    return len(status.rounds) >= number


@dataclass
class RunGround:
    """A store and a folder of runs, whose processes end with the test."""

    root: Path

    def __post_init__(self) -> None:
        self.store: FolderStore = open_store(self.root.as_uri() + "/store")
        self.launcher = LocalLauncher(self.root / "runs", SECRET, max_restarts=100)
        self._started: list[str] = []

    def spec(self, run: str = "run-1", *, rounds: int = 30, **changes: Any) -> RunSpec:
        sites = {}
        for site in SITES:
            train, validation = write_reviews(site, "", TRAIN_SAMPLES[site]), write_reviews(site, "呢", 12)
            sites[site] = SiteSpec(
                self.store.put_shard(train), len(train), self.store.put_shard(validation), len(validation)
            )
        heldout = [review for site in SITES for review in write_reviews(site, "啊", 40)]
        spec = RunSpec(
            run=run,
            store_url=self.root.as_uri() + "/store",
            sites=sites,
            heldout_digest=self.store.put_shard(heldout),
            champion_digest=None,
            rounds=rounds,
            network=NETWORK,
            deadline_seconds=240,
            round_deadline_seconds=120,
        )
        return replace(spec, **changes)

    def start(self, spec: RunSpec) -> None:
        self._started.append(spec.run)
        self.launcher.start(spec)

    def wait(
        self, run: str, condition: Callable[[RunStatus], bool], what: str, seconds: float = 240
    ) -> RunStatus:
        """Poll a run's status as the blog does; fails naming `what` when it does not come or the run ends first."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.launcher.status(run)
            if condition(status):
                return status
            if status.phase in ("failed", "done"):
                break
            time.sleep(0.05)
        raise AssertionError(
            f"{run}: {what} did not come; it is {status.phase} {status.reason}\n{self.logs(run)}"
        )

    def finish(self, spec: RunSpec) -> RunStatus:
        """Start a run and wait until it is done."""
        self.start(spec)
        return self.wait(spec.run, lambda status: status.phase == "done", "the end of the run")

    def processes(self, run: str) -> dict[str, psutil.Process]:
        """The run's living processes by name, once all are started."""
        recorded = json.loads((self.root / "runs" / run / "processes.json").read_text(encoding="utf-8"))
        living: dict[str, psutil.Process] = {}
        for entry in recorded["processes"]:
            try:
                process = psutil.Process(entry["pid"])
                if process.status() != psutil.STATUS_ZOMBIE:
                    living[entry["name"]] = process
            except psutil.NoSuchProcess:
                continue
        return living

    def kill(self, run: str, name: str) -> None:
        """kill -9 one of the run's processes."""
        process = self.processes(run)[name]
        process.kill()
        process.wait(timeout=60)

    def log(self, run: str, name: str) -> str:
        return (self.root / "runs" / run / f"{name}.log").read_text(encoding="utf-8")

    def logs(self, run: str) -> str:
        files = sorted((self.root / "runs" / run).glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(encoding='utf-8')[-2000:]}" for file in files)

    def close(self) -> None:
        for run in self._started:
            self.launcher.stop(run)
            assert not self.processes(run), f"{run} left processes behind"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[RunGround]:
    made = RunGround(tmp_path)
    yield made
    made.close()


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes of a run, from now on: seconds of importing less for each."""
    monkeypatch.setattr(federated.launch.local, "start_process", start_forked_process)


@dataclass(frozen=True)
class FinishedRun:
    ground: RunGround
    spec: RunSpec
    status: RunStatus
    seconds: float

    @property
    def digest(self) -> str:
        assert self.status.result is not None
        return str(self.status.result["artifact"])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    """One whole run; tests read what it left and change nothing."""
    made = RunGround(tmp_path_factory.mktemp("finished"))
    spec = made.spec()
    began = time.monotonic()
    try:
        status = made.finish(spec)
        yield FinishedRun(made, spec, status, time.monotonic() - began)
    finally:
        made.close()
