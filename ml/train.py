"""One gradient, one optimizer step, and the training that joins them in one process.

Federated training uses the same pieces: sites call `batch_gradient`, the aggregator divides the sum of all
gradient sums by the number of all samples and gives it to the server optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml.data import Batch, Dataset, collate, epoch_batches, pool_datasets
from ml.metrics import Evaluation, evaluate_predictions
from ml.model import SentimentLSTM, build_model, initial_parameters
from ml.model_config import ModelConfig
from ml.training_config import FIRST_TRAINING, RETRAINING, TrainingConfig

__all__ = [
    "FIRST_TRAINING",
    "RETRAINING",
    "BatchGradient",
    "RoundProgress",
    "ServerOptimizer",
    "StepReport",
    "TrainingConfig",
    "batch_gradient",
    "evaluate",
    "learning_rate_at",
    "make_server_optimizer",
    "train_centrally",
]

_MOMENTS: Final = ("exp_avg", "exp_avg_sq")  # as torch names what AdamW remembers of each parameter
_SLICE_SAMPLES: Final = 32  # samples of similar length that go through the network together


@dataclass(frozen=True)
class BatchGradient:
    """What one site computes from one batch: sums over its samples, so that sites' results add up."""

    sums: dict[str, Tensor]  # parameter name → gradient of the summed loss, shaped like the parameter
    samples: int
    loss_sum: float  # label-smoothed cross-entropy in nats
    correct: int


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did."""

    step: int  # steps made, this one included
    learning_rate: float
    gradient_norm: float  # of the averaged gradient before clipping


@dataclass(frozen=True)
class RoundProgress:
    """Where a central training stands after a round."""

    round: int
    rounds: int
    loss: float  # mean over the round's samples
    accuracy: float
    step: StepReport


def batch_gradient(model: SentimentLSTM, batch: Batch, label_smoothing: float) -> BatchGradient:
    """Compute the gradient of the summed loss over a batch, with dropout if the model is in training mode.

    The batch goes through in slices of similar length, which spares most of the padding; since the loss is a
    sum, the gradient is that of the whole batch. The model's parameters do not change. Dropout draws from
    torch's global generator: seed it per round for a repeatable run.
    """
    model.zero_grad(set_to_none=True)
    loss_sum, correct = 0.0, 0
    for token_ids, lengths, labels in _slices(batch):
        logits = model(token_ids, lengths)  # (S, classes)
        loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
        loss.backward()
        loss_sum += loss.item()
        correct += int((logits.argmax(dim=1) == labels).sum())
    sums = {name: _taken_gradient(parameter) for name, parameter in model.named_parameters()}
    return BatchGradient(sums, len(batch), loss_sum, correct)


def _taken_gradient(parameter: torch.nn.Parameter) -> Tensor:
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter.data) if gradient is None else gradient


def _slices(batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    order = np.argsort(-batch.lengths, kind="stable")
    for start in range(0, len(order), _SLICE_SAMPLES):
        rows = order[start : start + _SLICE_SAMPLES]
        token_ids = batch.token_ids[rows, : int(batch.lengths[rows[0]])]  # (S, longest of the slice)
        lengths, labels = batch.lengths[rows], batch.labels[rows]
        yield torch.from_numpy(token_ids), torch.from_numpy(lengths), torch.from_numpy(labels)


class ServerOptimizer:
    """AdamW in float32 with a linear warm-up, a cosine decay and an average of recent parameters."""

    def __init__(self, parameters: Mapping[str, Tensor], config: TrainingConfig) -> None:
        """Start from copies of `parameters`."""
        self.config = config
        self._parameters = {
            name: value.detach().to(torch.float32, copy=True) for name, value in parameters.items()
        }
        self._average = {name: value.clone() for name, value in self._parameters.items()}
        self._steps = 0
        decayed = [value for name, value in self._parameters.items() if value.dim() > 1]
        plain = [value for name, value in self._parameters.items() if value.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        # Fused: one pass over the memory instead of eight.
        self._adam = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return self._steps

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters at which the next round's gradients are taken; not copies."""
        return self._parameters

    def step(self, mean_gradients: Mapping[str, Tensor]) -> StepReport:
        """Make one step along the averaged gradient, clipped as a whole.

        Raises ValueError, changing nothing, when a gradient is missing, misshapen or not finite.
        """
        norm = self._measure(mean_gradients)
        gradients = {name: mean_gradients[name].to(torch.float32) for name in self._parameters}
        scale = min(1.0, self.config.clip_norm / norm) if norm > 0 else 1.0
        rate = learning_rate_at(self._steps, self.config)
        for group in self._adam.param_groups:
            group["lr"] = rate
        for name, parameter in self._parameters.items():
            parameter.grad = gradients[name] if scale == 1.0 else gradients[name] * scale
        self._adam.step()
        self._steps += 1
        self._follow()
        return StepReport(self._steps, rate, norm)

    def final_parameters(self) -> dict[str, Tensor]:
        """Give the result of the training: the average of recent parameters, or the last ones without it."""
        chosen = self._average if self.config.averaging_decay > 0 else self._parameters
        return {name: value.detach().clone() for name, value in chosen.items()}

    def state(self) -> dict[str, Tensor]:
        """Give all that the next steps depend on, by names like average/output.bias; not copies."""
        moments = {
            f"{kind}/{name}": self._adam.state[value][kind]
            for name, value in self._parameters.items()
            if value in self._adam.state
            for kind in _MOMENTS
        }
        return {
            "steps": torch.tensor(self._steps),
            **{f"parameters/{name}": value for name, value in self._parameters.items()},
            **{f"average/{name}": value for name, value in self._average.items()},
            **moments,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: TrainingConfig) -> ServerOptimizer:
        """Make an optimizer that goes on, bit for bit, as the one would that gave this state."""
        prefix = "parameters/"
        names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
        made = cls({name: state[prefix + name] for name in names}, config)
        made._steps = int(state["steps"])
        for name in names:
            made._average[name].copy_(state[f"average/{name}"])
            if made._steps:
                moments = {kind: state[f"{kind}/{name}"].clone() for kind in _MOMENTS}
                made._adam.state[made._parameters[name]] = {
                    "step": torch.tensor(float(made._steps)),
                    **moments,
                }
        return made

    def _follow(self) -> None:
        # Early on the average is short, so that the random start does not weigh on the result.
        decay = min(self.config.averaging_decay, self._steps / (self._steps + 10))
        for name, value in self._parameters.items():
            self._average[name].lerp_(value, 1 - decay)

    def _measure(self, gradients: Mapping[str, Tensor]) -> float:
        """Give the norm of the whole gradient; raises ValueError for one that does not fit or is not finite."""
        if set(gradients) != set(self._parameters):
            wrong = sorted(set(gradients) ^ set(self._parameters))
            raise ValueError(f"gradients and parameters differ in {', '.join(wrong)}")
        squares = 0.0
        for name, gradient in gradients.items():
            if gradient.shape != self._parameters[name].shape:
                expected = tuple(self._parameters[name].shape)
                raise ValueError(f"gradient of {name} has shape {tuple(gradient.shape)}, expected {expected}")
            if not math.isfinite(norm := float(torch.linalg.vector_norm(gradient, dtype=torch.float64))):
                raise ValueError(f"gradient of {name} holds a value that is not finite")
            squares += norm * norm
        return math.sqrt(squares)


def make_server_optimizer(
    parameters: Mapping[str, Tensor], training_config: TrainingConfig
) -> ServerOptimizer:
    """Make the optimizer that turns each round's averaged gradient into new parameters."""
    return ServerOptimizer(parameters, training_config)


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Give the rate of a step counted from 0: a linear warm-up to the peak, then half a cosine."""
    if step < config.warmup_rounds:
        return config.learning_rate * (step + 1) / config.warmup_rounds
    left = max(1, config.rounds - config.warmup_rounds)
    done = min(1.0, (step - config.warmup_rounds) / left)
    floor = config.final_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def evaluate(model: SentimentLSTM, dataset: Dataset, batch_size: int = 256) -> Evaluation:
    """Score a model on a dataset, without dropout and without label smoothing; the model's mode is kept."""
    was_training = model.training
    model.eval()
    predicted = np.zeros(len(dataset), dtype=np.int64)
    loss_sum = 0.0
    order = np.argsort(dataset.lengths, kind="stable")  # texts of similar length together: little padding
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate(dataset, rows)
        logits = model(torch.from_numpy(batch.token_ids), torch.from_numpy(batch.lengths))
        loss_sum += functional.cross_entropy(logits, torch.from_numpy(batch.labels), reduction="sum").item()
        predicted[rows] = logits.argmax(dim=1).numpy()
    model.train(was_training)
    return evaluate_predictions(dataset.labels, predicted, loss=loss_sum / max(1, len(dataset)))


def train_centrally(
    datasets: Sequence[Dataset],
    model_config: ModelConfig,
    training_config: TrainingConfig,
    *,
    start: Mapping[str, Tensor] | None = None,
    on_round: Callable[[RoundProgress], None] | None = None,
) -> SentimentLSTM:
    """Train on all sites' samples pooled in one process, with the arithmetic of a federated run.

    `start` are the parameters of an earlier model (warm start); without them they are drawn. Gives the model
    in evaluation mode. Seeds torch's global generator. Raises ValueError when there is no sample.
    """
    pooled = pool_datasets(datasets)
    seed = training_config.seed
    optimizer = make_server_optimizer(start or initial_parameters(model_config, seed), training_config)
    batches = epoch_batches(len(pooled), training_config.global_batch_size, seed)
    torch.manual_seed(seed)
    for number in range(1, training_config.rounds + 1):
        model = build_model(model_config, optimizer.parameters).train()
        result = batch_gradient(model, collate(pooled, next(batches)), training_config.label_smoothing)
        report = optimizer.step({name: total / result.samples for name, total in result.sums.items()})
        if on_round is not None:
            loss, accuracy = result.loss_sum / result.samples, result.correct / result.samples
            on_round(RoundProgress(number, training_config.rounds, loss, accuracy, report))
    return build_model(model_config, optimizer.final_parameters()).eval()
