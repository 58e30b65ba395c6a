"""The strategies: what a site computes in a round, and what the aggregator makes of the average.

    fedsgd    the gradient of one batch at the round's parameters, one step of the server optimizer: large-batch SGD
              (McMahan et al. 2017, arXiv:1602.05629). The default, and the only one that equals central training.
    fedavg    several local steps, the parameters averaged (the same paper)
    fedopt    several local steps, what they moved taken as a gradient by the server optimizer (Reddi et al. 2021,
              arXiv:2003.00295)
    scaffold  fedavg, each local step corrected by control variates (Karimireddy et al. 2020, arXiv:1910.06378)

Every upload is a sum weighted by samples, so that all of them are added and averaged by the same exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import torch
from torch import Tensor

from federated.protocol import Tensors
from ml.data import Batch
from ml.model import ROW_PARAMETERS, SentimentLSTM
from ml.optimizer import ServerOptimizer
from ml.train import BatchGradient, batch_gradient
from ml.training_config import StrategyName, TrainingConfig

CONTROL: Final = "control/"


@dataclass(frozen=True)
class LocalTraining:
    """How a site trains in a round."""

    rate: float  # of plain SGD
    label_smoothing: float


class Site(Protocol):
    """A site's half of a strategy; it may remember things from round to round."""

    def compute(
        self,
        model: SentimentLSTM,
        held: Mapping[str, Tensor],
        batches: Sequence[Batch],
        training: LocalTraining,
    ) -> BatchGradient:
        """Give what to upload, sums over the batches' samples; `held` is what came down, and stays as it is."""


class Strategy(Protocol):
    """Both halves; `name` is how a training configuration calls it."""

    name: StrategyName

    def server_config(self, config: TrainingConfig) -> TrainingConfig:
        """Give the configuration of the aggregator's optimizer."""

    def start(self, parameters: Mapping[str, Tensor], config: TrainingConfig) -> ServerOptimizer:
        """Give the optimizer whose tensors go down to the sites, whose uploads have the same names and shapes."""

    def weigh(self, averaged: Tensors, participation: float) -> Tensors:
        """Give the averaged uploads as they are to be applied; `participation` is the share of samples heard, 0..1."""

    def site(self) -> Site:
        """Make a site's half."""


class FedSgd:
    """Averaging of gradients that were taken at the same parameters."""

    name: StrategyName = "fedsgd"

    def server_config(self, config: TrainingConfig) -> TrainingConfig:
        """Leave the optimizer as it is configured."""
        return config

    def start(self, parameters: Mapping[str, Tensor], config: TrainingConfig) -> ServerOptimizer:
        """Give the optimizer of the parameters."""
        return ServerOptimizer(parameters, self.server_config(config), ROW_PARAMETERS)

    def weigh(self, averaged: Tensors, participation: float) -> Tensors:
        """Leave the average as it is."""
        return averaged

    def site(self) -> Site:
        """Make a site's half, which remembers nothing."""
        return GradientSite()


class GradientSite:
    """Takes the gradient of a round's batches; the parameters stay where they are."""

    def compute(
        self,
        model: SentimentLSTM,
        held: Mapping[str, Tensor],
        batches: Sequence[Batch],
        training: LocalTraining,
    ) -> BatchGradient:
        """Give the gradient sum of the batch; of several the sum of theirs."""
        return add_up([batch_gradient(model, batch, training.label_smoothing) for batch in batches])


class FedOpt(FedSgd):
    """Averaging of what local steps moved, as the gradient of the configured optimizer."""

    name: StrategyName = "fedopt"

    def site(self) -> Site:
        """Make a site's half, which remembers nothing."""
        return SteppingSite()


class FedAvg(FedOpt):
    """Averaging of parameters: a step of length one along what local steps moved."""

    name: StrategyName = "fedavg"

    def server_config(self, config: TrainingConfig) -> TrainingConfig:
        """Make the optimizer add the average and do nothing else."""
        return plain_addition(config)


class SteppingSite:
    """Trains on its batches by plain SGD, and gives the way back: (start - end), times its samples."""

    def compute(
        self,
        model: SentimentLSTM,
        held: Mapping[str, Tensor],
        batches: Sequence[Batch],
        training: LocalTraining,
    ) -> BatchGradient:
        """Give the sum whose average the aggregator subtracts; rows that no batch touched are left out."""
        start = {name: value.detach().clone() for name, value in model.named_parameters()}
        whole = add_up([descend(model, batch, training) for batch in batches])
        moved = {}
        with torch.no_grad():
            for name, value in model.named_parameters():
                difference = (start[name] - value) * whole.samples
                touched = whole.sums[name]
                moved[name] = difference.sparse_mask(touched) if touched.is_sparse else difference
                value.copy_(start[name])
        return replace(whole, sums=moved)


class Scaffold(FedAvg):
    """FedAvg whose local steps are corrected for how a site's gradients differ from everybody's.

    The variant with option II of the paper: a site's control variate becomes the mean gradient of its local steps.
    Sites weigh by their samples, as everywhere here, where the paper weighs them alike. Corrections move rows that no
    batch touched, so nothing is sent as rows. A trainer that was started anew begins with a control variate of zero.
    """

    name: StrategyName = "scaffold"

    def start(self, parameters: Mapping[str, Tensor], config: TrainingConfig) -> ServerOptimizer:
        """Give an optimizer of the parameters and the server's control variate, which starts at zero."""
        controls = {CONTROL + name: torch.zeros_like(value) for name, value in parameters.items()}
        return ServerOptimizer({**parameters, **controls}, self.server_config(config))

    def weigh(self, averaged: Tensors, participation: float) -> Tensors:
        """Move the server's control variate only as far as sites were heard."""
        return {
            name: value * value.dtype.type(participation) if name.startswith(CONTROL) else value
            for name, value in averaged.items()
        }

    def site(self) -> Site:
        """Make a site's half, which remembers its control variate."""
        return ScaffoldSite()


class ScaffoldSite:
    """Trains by corrected steps."""

    def __init__(self) -> None:
        self._control: dict[str, Tensor] = {}

    def compute(
        self,
        model: SentimentLSTM,
        held: Mapping[str, Tensor],
        batches: Sequence[Batch],
        training: LocalTraining,
    ) -> BatchGradient:
        """Give (start - end) of the parameters and (before - after) of the control variate, times the samples."""
        start = {name: value.detach().clone() for name, value in model.named_parameters()}
        before = self._control or {name: torch.zeros_like(value) for name, value in start.items()}
        corrections = {name: held[CONTROL + name] - value for name, value in before.items()}
        results = []
        for batch in batches:
            results.append(replace(descend(model, batch, training), sums={}))
            with torch.no_grad():
                for name, value in model.named_parameters():
                    value.sub_(corrections[name], alpha=training.rate)
        whole = add_up(results)
        sums, after = {}, {}
        with torch.no_grad():
            for name, value in model.named_parameters():
                moved = start[name] - value
                after[name] = moved / (len(batches) * training.rate) - corrections[name]
                sums[name] = moved * whole.samples
                sums[CONTROL + name] = (before[name] - after[name]) * whole.samples
                value.copy_(start[name])
        self._control = after
        return replace(whole, sums=sums)


STRATEGIES: Final[Mapping[str, Strategy]] = {
    strategy.name: strategy for strategy in (FedSgd(), FedOpt(), FedAvg(), Scaffold())
}


def network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give those of a strategy's tensors that are the network's own."""
    return {name: value for name, value in tensors.items() if not name.startswith(CONTROL)}


def descend(model: SentimentLSTM, batch: Batch, training: LocalTraining) -> BatchGradient:
    """Make a step of plain SGD in place; gives the gradient that it followed."""
    result = batch_gradient(model, batch, training.label_smoothing)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(result.sums[name], alpha=-training.rate / result.samples)
    return result


def plain_addition(config: TrainingConfig) -> TrainingConfig:
    """Give the configuration under which an optimizer's step is to subtract what it is given."""
    return replace(
        config,
        server_optimizer="sgd",
        momentum=0.0,
        learning_rate=1.0,
        final_rate_fraction=1.0,
        warmup_rounds=0,
        weight_decay=0.0,
        clip_norm=0.0,
    )


def add_up(results: Sequence[BatchGradient]) -> BatchGradient:
    """Add up what was computed from several batches."""
    if len(results) == 1:
        return results[0]
    sums = {}
    for name in results[0].sums:
        total = results[0].sums[name]
        for result in results[1:]:
            total = total + result.sums[name]
        sums[name] = total.coalesce() if total.is_sparse else total
    return BatchGradient(
        sums,
        sum(result.samples for result in results),
        sum(result.loss_sum for result in results),
        sum(result.correct for result in results),
    )
