"""A Flower app whose sites send a gradient they have ready, so that all of a round's time is Flower's own.

`flower_bench` copies this file into an app that Flower's own environment runs (requirements/bench.txt): it imports
nothing of this project. The app's configuration says `gradients_dir`, `sites`, `rounds` and where the `result` goes.
"""

from __future__ import annotations

import json
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

SAMPLES = 64  # of each site, as in `bench`

client_app = ClientApp()
server_app = ServerApp()


@client_app.train()
def send_gradient(message: Message, context: Context) -> Message:
    """Answer with the site's gradient and how long it took to have it ready."""
    began = time.perf_counter()
    round_number = int(message.content["config"]["server-round"])
    # Other numbers in each round, as in training: what Flower holds already, byte for byte, it does not send again.
    gradient = [
        value * np.float32(1 + round_number / 1000)
        for value in read_gradient(
            str(context.run_config["gradients_dir"]), int(context.node_config["partition-id"])
        )
    ]
    metrics = {"samples": SAMPLES, "compute_seconds": time.perf_counter() - began}
    content = {"arrays": ArrayRecord(gradient), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


@server_app.main()
def run_rounds(grid: Grid, context: Context) -> None:
    """Average the sites' gradients in every round; writes the seconds of each, less the slowest site's computing."""
    sites, rounds = int(context.run_config["sites"]), int(context.run_config["rounds"])
    ended: list[float] = []  # each round, and before them the beginning of the first

    def find_slowest(replies: list[RecordDict], _: str) -> MetricRecord:
        if len(replies) < sites:
            raise RuntimeError(f"{len(replies)} of {sites} sites answered")
        seconds = (float(reply["metrics"]["compute_seconds"]) for reply in replies)
        return MetricRecord({"compute_seconds": max(seconds)})

    def note_time(_round: int, _arrays: ArrayRecord) -> None:
        ended.append(time.perf_counter())

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=sites,
        min_available_nodes=sites,
        weighted_by_key="samples",
        train_metrics_aggr_fn=find_slowest,
    )
    # Flower calls it before the first round and at the end of each.
    initial = ArrayRecord(read_gradient(str(context.run_config["gradients_dir"]), 0))
    result = strategy.start(grid, initial, num_rounds=rounds, evaluate_fn=note_time)
    computing = [result.train_metrics_clientapp[number + 1]["compute_seconds"] for number in range(rounds)]
    overheads = [
        end - began - compute for (began, end), compute in zip(pairwise(ended), computing, strict=True)
    ]
    Path(str(context.run_config["result"])).write_text(json.dumps(overheads), encoding="utf-8")


@cache  # for as long as the engine keeps a process
def read_gradient(gradients_dir: str, site: int) -> list[np.ndarray]:
    with np.load(Path(gradients_dir) / f"{site}.npz") as file:
        return [file[name] for name in file.files]
