"""What a round costs beside the sites' own computing, how much memory the aggregator takes, and how fast sites train.

    python -m federated.bench [--rounds N]        (`make bench-federated`)

An aggregator in a process of its own, with a network of 3.5 M parameters; sites that send a gradient they have ready,
so that all of a round's time is overhead: packing, sending, adding, the optimizer's step, the journal, sending back.
The throughput is that of real trainers on the bootstrap corpus against central training with as many threads as there
are cores. The last line is JSON; figures of one run are comparable with each other, not with another machine's.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import queue
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console

from federated.aggregator import VOCABULARY_MAX_SIZE, VOCABULARY_MIN_COUNT, prepare_rounds
from federated.flower_bench import measure_flower
from federated.launch.local import AGGREGATOR_MEMORY, LocalLauncher
from federated.partition import partition_by_dirichlet
from federated.protocol import DIARY, ProgressLog, RunSpec, SiteSpec, Tensors
from federated.rows import apply_changes, pack_tensors
from federated.store import FolderStore
from federated.trainer import AggregatorClient
from ml import model
from ml.bootstrap import read_bootstrap_corpus
from ml.data import Example, collate, encode_dataset
from ml.model import build_model, initial_parameters
from ml.model_config import FIRST_NETWORK, ModelConfig
from ml.text import split_of
from ml.threads import available_cpus
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.train import batch_gradient, train_centrally
from ml.training_config import FIRST_TRAINING
from ml.vocabulary import Vocabulary, build_vocabulary, count_tokens

# The network of a first training, larger: 3.5 M parameters with the vocabulary of the bootstrap corpus.
NETWORK = replace(FIRST_NETWORK, embedding_dim=96, hidden_dim=160)
BATCH_REVIEWS = 64
WARM_UP_ROUNDS = 5
SITES = 4
MANY_SITES = 64
MANY_SITES_ROUNDS = 6
# Samples of all sites in a round → rounds to time: a first training's, and four times as many for the same overhead.
THROUGHPUT_ROUNDS = {FIRST_TRAINING.global_batch_size: 40, 4 * FIRST_TRAINING.global_batch_size: 20}
Pack = Callable[[Mapping[str, torch.Tensor]], Tensors]
TOKEN = "only-for-this-benchmark"  # noqa: S105 - of a server on this machine that lives for seconds


@dataclass(frozen=True)
class RoundCosts:
    """Of one site, over the rounds that count."""

    overhead_ms: float  # median
    bytes_up: float
    bytes_down: float
    aggregator_rss_mb: float  # at its highest


def measure_rounds(rounds: int, sites: int, pack: Pack) -> RoundCosts:
    """Run rounds of ready gradients, `pack`ed by each site, and measure them at the sites and at the aggregator."""
    with tempfile.TemporaryDirectory(prefix="huisheng-bench-") as folder:
        address: Any = multiprocessing.get_context("spawn").Queue()
        serving = multiprocessing.get_context("spawn").Process(
            target=serve, args=(folder, sites, rounds + WARM_UP_ROUNDS, address)
        )
        os.environ |= AGGREGATOR_MEMORY  # as its launcher starts it; read when a process begins
        serving.start()
        for name in AGGREGATOR_MEMORY:
            del os.environ[name]
        try:
            url = f"http://127.0.0.1:{wait_for(address, [serving])}"
            periods = run_sites(url, sites, pack)
            peak = peak_rss_mb(serving.pid or 0)
            record = last_record(Path(folder))
        finally:
            serving.terminate()
            serving.join()
    counted = periods[WARM_UP_ROUNDS:]
    return RoundCosts(
        statistics.median(counted) * 1000, record["bytes_up"] / sites, record["bytes_down"] / sites, peak
    )


def serve(folder: str, sites: int, rounds: int, address: Any) -> None:
    """The aggregator's process: rounds without end, as far as the sites can tell."""
    from federated.aggregator import Aggregator
    from federated.journal import Journal
    from federated.server import AggregatorServer

    torch.set_num_threads(1)  # as the aggregator's own command does
    store = FolderStore(Path(folder) / "store")
    shard = store.put_shard([])
    spec = RunSpec(
        run="bench",
        store_url=store.root.as_uri(),
        sites={site_name(number): SiteSpec(shard, 10**6, shard, 0) for number in range(sites)},
        heldout_digest=shard,
        champion_digest=None,
        network=NETWORK.to_json(),
        rounds=rounds + 1,  # the last is never answered: nothing is to be concluded
        deadline_seconds=600,
    )
    progress = ProgressLog(Path(folder) / DIARY)
    aggregator = Aggregator(spec, store, progress, Journal(Path(folder)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=sites + 8)
    tokens = {site: f"{TOKEN}-{site}" for site in spec.sites}
    with AggregatorServer(listener, aggregator, tokens).serving():
        address.put(listener.getsockname()[1])
        aggregator.lead()


def run_sites(url: str, sites: int, pack: Pack) -> list[float]:
    """Let the sites answer all rounds, each in a process of its own up to SITES of them; gives one's round times."""
    if sites <= SITES:
        context = multiprocessing.get_context("spawn")
        results: Any = context.Queue()
        others = [
            context.Process(target=answer_rounds, args=(url, number, pack, results))
            for number in range(sites)
        ]
        for process in others:
            process.start()
        periods: list[float] = min((wait_for(results, others) for _ in others), key=len)
        for process in others:
            process.join()
        return periods
    collected: list[list[float]] = []
    for number in range(SITES):  # not by all threads at once
        make_gradient(number)
    threads = [
        threading.Thread(target=lambda number=number: collected.append(answer(url, number, pack)))
        for number in range(sites)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return collected[0]


def wait_for(results: Any, processes: Sequence[BaseProcess]) -> Any:
    """Give what one of the processes says next; ends them all when one of them has died."""
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(process.exitcode for process in processes):
                for process in processes:
                    process.terminate()
                raise RuntimeError("a process of this benchmark has died: its reason stands above") from None


def answer_rounds(url: str, number: int, pack: Pack, results: Any) -> None:
    results.put(answer(url, number, pack))


def answer(url: str, number: int, pack: Pack) -> list[float]:
    """Answer every round but the last with a gradient that is ready; gives the seconds of each."""
    torch.set_num_threads(1)  # as where trainers share a machine
    client = AggregatorClient(url, f"{TOKEN}-{site_name(number)}")
    header, parameters = client.join({"token_counts": count_words()})
    held = {name: torch.from_numpy(value).clone() for name, value in parameters.items()}
    gradient = pack(make_gradient(number % SITES))
    batch = {"samples": 64, "loss_sum": 64.0, "correct": 32}
    periods = []
    last = header["rounds"] - 1
    while header["round"] <= last:
        began = time.perf_counter()
        header, changes = client.exchange(int(header["round"]), {"batch": batch}, gradient)
        apply_changes(held, changes)
        periods.append(time.perf_counter() - began)
    client.close()
    return periods


@functools.cache
def make_gradient(number: int) -> dict[str, torch.Tensor]:
    """The gradient of the reviews that are the number's, at a first training's start; computed once a process."""
    reviews = read_reviews()[number * BATCH_REVIEWS : (number + 1) * BATCH_REVIEWS]
    vocabulary, config = make_vocabulary(), FIRST_TRAINING
    dataset = encode_dataset(reviews, make_tokenizer(TokenizerSettings()), vocabulary, config.max_length)
    network = build_model(size_network(), initial_parameters(size_network(), seed=0), words=vocabulary.tokens)
    torch.manual_seed(number)
    return batch_gradient(
        network.train(), collate(dataset, range(BATCH_REVIEWS)), config.label_smoothing
    ).sums


def make_gradients() -> list[Tensors]:
    """Those that the sites of `measure_rounds` send whole."""
    return [whole(make_gradient(number)) for number in range(SITES)]


@functools.cache
def read_reviews() -> list[Example]:
    """The training samples of the bootstrap corpus."""
    return [example for example in read_bootstrap_corpus().examples if split_of(example.text) == "train"]


@functools.cache
def count_words() -> Mapping[str, int]:
    """What each site says it has: the words of the whole corpus."""
    tokenizer = make_tokenizer(TokenizerSettings())
    return count_tokens((review.text for review in read_reviews()), tokenizer)


@functools.cache
def make_vocabulary() -> Vocabulary:
    """The vocabulary that a run of these sites agrees on."""
    return build_vocabulary(count_words(), max_size=VOCABULARY_MAX_SIZE, min_count=VOCABULARY_MIN_COUNT)


def size_network() -> ModelConfig:
    """The network with this vocabulary."""
    return replace(NETWORK, vocabulary_size=len(make_vocabulary()))


def count_parameters() -> int:
    """Those of the network."""
    return model.count_parameters(size_network())


def site_name(number: int) -> str:
    return f"site-{number}"


def peak_rss_mb(pid: int) -> float:
    """The most memory a living process has had (Linux: VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc: this benchmark needs Linux")


def last_record(folder: Path) -> dict[str, Any]:
    lines = (folder / DIARY).read_text(encoding="utf-8").splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [record for record in records if record["kind"] == "round"][-1]


# -- Throughput --------------------------------------------------------------------------------------------------


def measure_throughput(console: Console, batch_samples: int, rounds: int) -> float:
    """Samples a second of SITES real trainers, against one central process with as many threads as cores.

    A step is on `batch_samples` samples here and there.
    """
    examples = read_reviews()
    homes = partition_by_dirichlet([example.label for example in examples], sites=SITES, alpha=1.0, seed=0)
    with tempfile.TemporaryDirectory(prefix="huisheng-bench-") as folder:
        root = Path(folder)
        store = FolderStore(root / "store")
        shards = [
            [{"text": example.text, "label": example.label, "site": site_name(home)}
             for example, mine in zip(examples, homes, strict=True) if mine == home]
            for home in range(SITES)
        ]  # fmt: skip
        empty = store.put_shard([])
        spec = RunSpec(
            run="bench",
            store_url=store.root.as_uri(),
            sites={
                site_name(home): SiteSpec(store.put_shard(shard), len(shard), empty, 0)
                for home, shard in enumerate(shards)
            },
            heldout_digest=store.put_shard(shards[0][:50]),
            champion_digest=None,
            rounds=rounds,
            deadline_seconds=600,
            training={"global_batch_size": batch_samples},
        )
        federated = time_run(LocalLauncher(root / "runs", TOKEN), spec, console)
    tokenizer = make_tokenizer(TokenizerSettings())
    vocabulary = make_vocabulary()
    config = replace(FIRST_TRAINING.with_rounds(rounds), global_batch_size=batch_samples)
    dataset = encode_dataset(examples, tokenizer, vocabulary, config.max_length)
    torch.set_num_threads(available_cpus())
    prepare_rounds(config)
    began = time.perf_counter()
    network = replace(FIRST_NETWORK, vocabulary_size=len(vocabulary))
    train_centrally([dataset], network, config, words=vocabulary.tokens)
    return (time.perf_counter() - began) / federated


def time_run(launcher: LocalLauncher, spec: RunSpec, console: Console) -> float:
    """Seconds from the first round of a run to its last, as seen from here."""
    launcher.start(spec)
    try:
        began = 0.0
        with console.status("real trainers"):
            while True:
                status = launcher.status(spec.run)
                if status.phase == "failed":
                    raise RuntimeError(status.reason)
                if status.phase == "training" and not began:
                    began = time.perf_counter()
                if len(status.rounds) >= (spec.rounds or 0):
                    return time.perf_counter() - began
                time.sleep(0.02)
    finally:
        launcher.stop(spec.run)


def whole(gradient: Mapping[str, torch.Tensor]) -> Tensors:
    """Send everything, and touch every row, so that everything comes down as well."""
    dense = {name: value.to_dense().numpy() for name, value in gradient.items()}
    return {name: np.where(value == 0, np.float32(1e-6), value) for name, value in dense.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m federated.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60, help="rounds that count (default: %(default)s)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    with console.status(f"rounds of {SITES} sites, whole gradients"):
        dense = measure_rounds(options.rounds, SITES, whole)
    with console.status(f"rounds of {SITES} sites, touched rows"):
        default = measure_rounds(options.rounds, SITES, pack_tensors)
    with console.status(f"memory with {MANY_SITES} sites"):
        many = measure_rounds(MANY_SITES_ROUNDS, MANY_SITES, whole)
    with console.status("Flower's rounds, where it is installed: two minutes"):
        flower = measure_flower(make_gradients())
    throughput = {
        str(batch): round(measure_throughput(console, batch, rounds), 3)
        for batch, rounds in THROUGHPUT_ROUNDS.items()
    }
    figures = {
        "params": count_parameters(),
        "sites": SITES,
        "round_overhead_ms": {"dense": round(dense.overhead_ms, 1), "default": round(default.overhead_ms, 1)},
        "throughput_vs_central": throughput[str(FIRST_TRAINING.global_batch_size)],
        "throughput_vs_central_by_batch": throughput,
        "bytes_up_per_site_round": {"dense": int(dense.bytes_up), "default": int(default.bytes_up)},
        "bytes_down_per_site_round": {"dense": int(dense.bytes_down), "default": int(default.bytes_down)},
        "aggregator_rss_mb": {
            str(SITES): round(dense.aggregator_rss_mb, 1),
            str(MANY_SITES): round(many.aggregator_rss_mb, 1),
        },
        "flower_round_overhead_ms": flower,
        "cores": psutil.cpu_count(),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
