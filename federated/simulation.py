"""A federated run in one process: the same strategies, sums and steps, without trainers, HTTP or a journal.

For comparing strategies on many seeds and splits. Given the same shards, a run of processes and a simulated one make
the same sums and the same steps; only the sites' texts need not lie apart here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from federated.averaging import GradientSum
from federated.encoding import Encoder
from federated.protocol import NO_METRICS, Metrics, Tensors, Update, batch_share, site_seed
from federated.rows import unpack_tensors
from federated.strategies import STRATEGIES, LocalTraining, network_tensors
from ml.data import Dataset, collate, length_batches
from ml.model import SentimentLSTM, build_model, initial_parameters
from ml.model_config import ModelConfig
from ml.optimizer import ServerOptimizer, local_rate_at
from ml.training_config import TrainingConfig


@dataclass(frozen=True)
class SimulatedRound:
    """Where a simulated run stands after a round."""

    number: int
    batch: Metrics  # of all sites together
    bytes_up: int  # of the tensors that all sites sent in this round
    bytes_down: int
    optimizer: ServerOptimizer


def simulate_run(
    shards: Mapping[str, Dataset],
    network: ModelConfig,
    config: TrainingConfig,
    words: Sequence[str] = (),
    on_round: Callable[[SimulatedRound], None] | None = None,
) -> SentimentLSTM:
    """Train over sites as a run does, one site after another; gives the model in evaluation mode.

    Sites without a sample take no part. `words` are the vocabulary's tokens, see `ml.model.build_model`. Seeds torch's
    global generator. Raises ValueError when no site has a sample.
    """
    shards = {site: shard for site, shard in sorted(shards.items()) if len(shard)}
    if not shards:
        raise ValueError("no site has a sample")
    strategy = STRATEGIES[config.strategy]
    optimizer = strategy.start(initial_parameters(network, config.seed), config)
    shapes = {name: tuple(value.shape) for name, value in optimizer.parameters.items()}
    total = GradientSum(shapes, sites=len(shards), rowwise=optimizer.rowwise)
    sites = {site: strategy.site() for site in shards}
    encoders = {site: Encoder(config.encoding) for site in shards}
    seeds = {site: site_seed(config.seed, site) for site in shards}
    everyone = sum(map(len, shards.values()))
    batches = {
        site: length_batches(
            shard.lengths,
            batch_share(config.global_batch_size, len(shard), everyone),
            seed=seeds[site],
            order_seed=config.seed,
        )
        for site, shard in shards.items()
    }
    model = build_model(network, network_tensors(optimizer.parameters), words=words, copy=False)
    for number in range(1, config.rounds + 1):
        training = LocalTraining(local_rate_at(number - 1, config), config.label_smoothing)
        seen, bytes_up = NO_METRICS, 0
        for site, shard in shards.items():
            torch.manual_seed(seeds[site] + number)
            chosen = [collate(shard, next(batches[site])) for _ in range(config.local_steps)]
            result = sites[site].compute(model.train(), optimizer.parameters, chosen, training)
            metrics = Metrics(result.samples, result.loss_sum, result.correct)
            uploaded = encoders[site].encode(result.sums)
            total.add(Update(site, number, uploaded, metrics))
            seen, bytes_up = seen + metrics, bytes_up + size_of(uploaded)
        averaged = strategy.weigh(total.take_average(), participation=1.0)
        optimizer.step(unpack_tensors(averaged, shapes))
        if on_round is not None:
            bytes_down = size_of(averaged) * len(shards)  # what has changed stands at the same places
            on_round(SimulatedRound(number, seen, bytes_up, bytes_down, optimizer))
    return build_model(network, final_parameters(optimizer), words=words).eval()


def final_parameters(optimizer: ServerOptimizer) -> dict[str, torch.Tensor]:
    """Give what an optimizer ends with, as far as it is the network's."""
    return network_tensors(optimizer.final_parameters())


def size_of(tensors: Tensors) -> int:
    """Count the bytes of a message's tensors."""
    return sum(value.nbytes for value in tensors.values())
