"""The server optimizers: SGD with momentum, Adam and AdamW, which leave alone the rows that a round did not touch.

A gradient is whole, or for a row-wise parameter (an embedding) a sparse COO tensor of the rows that a batch touched.
Those rows are stepped, their moments follow, and all other rows stay as they are, bit for bit; torch.optim.SparseAdam
does the same. So a round costs as much as its batch has words, and only what changed goes down to the sites.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from ml.training_config import TrainingConfig

_BETA1: Final = 0.9
_BETA2: Final = 0.99
_EPSILON: Final = 1e-8
_MOMENTS: Final = {
    "sgd": ("momentum",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did."""

    step: int  # steps made, this one included
    learning_rate: float
    gradient_norm: float  # of the averaged gradient before clipping


@dataclass(frozen=True)
class _Moving:
    """What one step moves of a parameter: all of it, or some rows of a row-wise one."""

    name: str
    rows: Tensor | None  # (R,); None for all
    gradient: Tensor
    value: Tensor  # the parameter itself, or copies of its rows (R, …); so too the moments and the average
    moments: list[Tensor]
    average: Tensor | None  # before the step; None where nothing is averaged


class ServerOptimizer:
    """Steps parameters in float32, with a linear warm-up, a cosine decay and an average of recent parameters.

    Which optimizer is `config.server_optimizer`: "sgd" (momentum as torch.optim.SGD), "adam" (Kingma and Ba 2015,
    arXiv:1412.6980; weight decay joins the gradient) or "adamw" (Loshchilov and Hutter 2019, arXiv:1711.05101).
    Clipping and weight decay come after averaging; biases are not decayed.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], config: TrainingConfig, rowwise: Collection[str] = ()
    ) -> None:
        """Start from copies of `parameters`; those of them in `rowwise` take sparse gradients, rows along dim 0."""
        self.config = config
        self.rowwise = frozenset(rowwise) & parameters.keys()
        self._parameters = {
            name: value.detach().to(torch.float32, copy=True) for name, value in parameters.items()
        }
        self._moments = {
            kind: {name: torch.zeros_like(value) for name, value in self._parameters.items()}
            for kind in _MOMENTS[config.server_optimizer]
        }
        averaged = self._parameters if config.averaging_decay > 0 else {}
        self._average = {name: value.clone() for name, value in averaged.items()}
        # Of a row-wise parameter's rows: after how many steps the average was last brought up to date.
        self._averaged_at = {
            name: torch.zeros(len(self._parameters[name]), dtype=torch.int64) for name in sorted(self.rowwise)
        }
        # At n: the logarithm of the product of the first n steps' averaging decays, (steps + 1,).
        self._log_decays = torch.zeros(1, dtype=torch.float64)
        self._steps = 0

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return self._steps

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters at which the next round's gradients are taken; not copies."""
        return self._parameters

    @torch.no_grad()
    def step(self, mean_gradients: Mapping[str, Tensor], threads: Executor | None = None) -> StepReport:
        """Make one step along the averaged gradient, clipped as a whole.

        With `threads` the row-wise parameters are stepped side by side; the result is the same. Raises ValueError,
        changing nothing, when a gradient is missing, misshapen or not finite.
        """
        norm = self._measure(mean_gradients)
        scale = min(1.0, self.config.clip_norm / norm) if norm > 0 and self.config.clip_norm > 0 else 1.0
        rate = learning_rate_at(self._steps, self.config)
        self._steps += 1
        self._remember_decay(self._steps)
        together = [name for name in mean_gradients if name not in self.rowwise]
        groups = [*([name] for name in mean_gradients if name in self.rowwise), together]
        groups.sort(key=lambda names: -sum(self._parameters[name].numel() for name in names))
        jobs = [{name: mean_gradients[name] for name in names} for names in groups]
        move = functools.partial(self._move_some, scale=scale, rate=rate)
        for _ in map(move, jobs) if threads is None else threads.map(move, jobs):
            pass
        return StepReport(self._steps, rate, norm)

    @torch.no_grad()  # which holds for a thread
    def _move_some(self, gradients: Mapping[str, Tensor], scale: float, rate: float) -> None:
        moving = [self._take(name, gradient, scale) for name, gradient in gradients.items()]
        for decayed in (True, False):
            self._move([part for part in moving if (part.value.dim() > 1) is decayed], rate, decayed)
        for part in moving:
            self._put_back(part)

    def _take(self, name: str, gradient: Tensor, scale: float) -> _Moving:
        """Take what a gradient moves: a whole parameter, or copies of the rows that it touches."""
        rows = None
        if gradient.is_sparse:
            rows, gradient = gradient.coalesce().indices()[0], gradient.coalesce().values()
            if len(rows) == len(self._parameters[name]):
                rows = None  # every row: copies would only cost time
        gradient = gradient.float() if scale == 1.0 else gradient.float() * scale
        places = [self._parameters[name], *(moments[name] for moments in self._moments.values())]
        value, *moments = places if rows is None else [place.index_select(0, rows) for place in places]
        average = self._settle(name, rows, value, self._steps - 1) if self._average else None
        return _Moving(name, rows, gradient, value, moments, average)

    def _put_back(self, part: _Moving) -> None:
        """Write rows back to their places, and let the average follow."""
        name, rows = part.name, part.rows
        if part.average is not None:
            part.average.lerp_(part.value, -math.expm1(self._log_decay(self._steps)))
        if rows is None:
            if name in self.rowwise:
                self._averaged_at[name].fill_(self._steps)
            return
        put_rows(self._parameters[name], rows, part.value)
        for moments, moved in zip(self._moments.values(), part.moments, strict=True):
            put_rows(moments[name], rows, moved)
        if part.average is not None:
            put_rows(self._average[name], rows, part.average)
        self._averaged_at[name].index_fill_(0, rows, self._steps)

    def _settle(self, name: str, rows: Tensor | None, values: Tensor, step: int) -> Tensor:
        """Give the average after `step` steps, the values not having changed since it was last brought up.

        Of some rows a copy, of a whole parameter the average itself. `values` are the parameter's at the same places.
        """
        average, averaged_at = self._average[name], self._averaged_at.get(name)
        if averaged_at is None:
            return average
        if rows is not None:
            average, averaged_at = average.index_select(0, rows), averaged_at.index_select(0, rows)
        if (averaged_at == step).all():
            return average
        # By the step at which a row was last settled: what of its average has been lost since.
        lost = -torch.expm1(self._log_decays[step] - self._log_decays[: step + 1]).float()
        return average.lerp_(values, lost[averaged_at].reshape(-1, *[1] * (values.dim() - 1)))

    def _move(self, parts: list[_Moving], rate: float, decayed: bool) -> None:
        """Step values and moments in place, each tensor in one pass over the memory (torch's fused kernels)."""
        if not parts:
            return
        values, gradients = [part.value for part in parts], [part.gradient for part in parts]
        weight_decay = self.config.weight_decay if decayed else 0.0
        if self.config.server_optimizer == "sgd":
            sgd(
                values,
                gradients,
                [part.moments[0] for part in parts],
                fused=True,
                lr=rate,
                weight_decay=weight_decay,
                momentum=self.config.momentum,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            return
        adam(
            values,
            gradients,
            [part.moments[0] for part in parts],
            [part.moments[1] for part in parts],
            [],
            [torch.tensor(self._steps - 1.0) for _ in parts],  # the kernel counts this step itself
            fused=True,
            decoupled_weight_decay=self.config.server_optimizer == "adamw",
            lr=rate,
            weight_decay=weight_decay,
            beta1=_BETA1,
            beta2=_BETA2,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    @torch.no_grad()
    def final_parameters(self) -> dict[str, Tensor]:
        """Give the result of the training: the average of recent parameters, or the last ones without it."""
        if not self._average:
            return {name: value.clone() for name, value in self._parameters.items()}
        return {
            name: self._settle(name, torch.arange(len(value)), value, self._steps)
            if name in self.rowwise
            else self._average[name].clone()
            for name, value in self._parameters.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Give all that the next steps depend on, by names like average/output.bias; not copies."""
        return {
            "steps": torch.tensor(self._steps),
            **{f"parameters/{name}": value for name, value in self._parameters.items()},
            **{f"average/{name}": value for name, value in self._average.items()},
            **{f"averaged_at/{name}": value for name, value in self._averaged_at.items()},
            **{
                f"{kind}/{name}": value
                for kind, moments in self._moments.items()
                for name, value in moments.items()
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: TrainingConfig) -> ServerOptimizer:
        """Make an optimizer that goes on, bit for bit, as the one would that gave this state."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
            }

        made = cls(part("parameters/"), config, part("averaged_at/"))
        made._steps = int(state["steps"])
        for step in range(1, made._steps + 1):
            made._remember_decay(step)
        kept = {"average/": made._average, "averaged_at/": made._averaged_at}
        kept |= {f"{kind}/": moments for kind, moments in made._moments.items()}
        for prefix, target in kept.items():
            for name, value in part(prefix).items():
                target[name].copy_(value)
        return made

    def _remember_decay(self, step: int) -> None:
        total = self._log_decays[-1:] + self._log_decay(step)
        self._log_decays = torch.cat([self._log_decays, total])

    def _log_decay(self, step: int) -> float:
        """The logarithm of what a step keeps of the average: early on little, for the start is random."""
        return math.log(min(self.config.averaging_decay, step / (step + 10))) if self._average else 0.0

    def _measure(self, gradients: Mapping[str, Tensor]) -> float:
        """Give the norm of the whole gradient; raises ValueError for one that does not fit or is not finite."""
        if set(gradients) != set(self._parameters):
            wrong = sorted(set(gradients) ^ set(self._parameters))
            raise ValueError(f"gradients and parameters differ in {', '.join(wrong)}")
        squares = 0.0
        for name, gradient in sorted(gradients.items()):  # the sum must not depend on who lists them
            if gradient.shape != self._parameters[name].shape:
                expected = tuple(self._parameters[name].shape)
                raise ValueError(f"gradient of {name} has shape {tuple(gradient.shape)}, expected {expected}")
            if gradient.is_sparse and name not in self.rowwise:
                raise ValueError(f"gradient of {name} is sparse, but the parameter is not row-wise")
            values = gradient.coalesce().values() if gradient.is_sparse else gradient
            if not math.isfinite(norm := float(torch.linalg.vector_norm(values.float()))):
                raise ValueError(f"gradient of {name} holds a value that is not finite")
            squares += norm * norm
        return math.sqrt(squares)


def put_rows(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """Write rows (R, …) of a tensor, `rows` (R,) and `values` being on the CPU; twice as quick there as torch's own."""
    if target.is_cuda:
        target.index_copy_(0, rows.to(target.device), values.to(target.device))
    else:
        target.numpy()[rows.numpy()] = values.numpy()


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Give the rate of a step counted from 0: a linear warm-up to the peak, then half a cosine."""
    if step < config.warmup_rounds:
        return config.learning_rate * (step + 1) / config.warmup_rounds
    left = max(1, config.rounds - config.warmup_rounds)
    done = min(1.0, (step - config.warmup_rounds) / left)
    floor = config.final_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def local_rate_at(step: int, config: TrainingConfig) -> float:
    """Give the rate of a round's plain SGD at the sites, which warms up and decays as the server's."""
    return learning_rate_at(step, config) / config.learning_rate * config.local_learning_rate
