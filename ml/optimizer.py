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

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from ml.row_steps import AdamStep, RowAverage, SgdStep, step_adam_rows, step_sgd_rows
from ml.threads import run_side_by_side
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

        With `threads` beside this one, parameters are stepped side by side; the result is the same. Raises ValueError,
        changing nothing, when a gradient is missing, misshapen or not finite.
        """
        norm = self._measure(mean_gradients)
        scale = min(1.0, self.config.clip_norm / norm) if norm > 0 and self.config.clip_norm > 0 else 1.0
        rate = learning_rate_at(self._steps, self.config)
        self._steps += 1
        self._remember_decay(self._steps)
        whole = {name: value for name, value in mean_gradients.items() if name not in self.rowwise}
        jobs = [
            functools.partial(self._step_rows, name, mean_gradients[name], scale, rate)
            for name in sorted(self.rowwise, key=lambda name: -self._parameters[name].numel())
        ]
        jobs.append(functools.partial(self._step_whole, whole, scale, rate))
        run_side_by_side(jobs, threads)
        return StepReport(self._steps, rate, norm)

    @torch.no_grad()  # which holds for a thread
    def _step_rows(self, name: str, gradient: Tensor, scale: float, rate: float) -> None:
        """Step the rows that a gradient touches, and let their average follow."""
        rows, values = torch.arange(len(gradient)), gradient
        if gradient.is_sparse:
            rows, values = gradient.coalesce().indices()[0], gradient.coalesce().values()
        averaging = self._averaging(name)
        value = self._parameters[name].numpy()
        moments = [kind[name].numpy() for kind in self._moments.values()]
        slopes = values.float().contiguous().numpy()
        if self.config.server_optimizer == "sgd":
            step_sgd_rows(value, moments[0], averaging, rows.numpy(), slopes, self._sgd_step(scale, rate))
        else:
            step = self._adam_step(scale, rate)
            step_adam_rows(value, moments[0], moments[1], averaging, rows.numpy(), slopes, step)

    def _averaging(self, name: str) -> RowAverage:
        """Say how the average of the rows that are stepped follows this step."""
        settled = self._averaged_at[name].numpy()
        if not self._average:
            nothing = np.zeros(0, np.float32)
            return RowAverage(
                False, self._parameters[name].numpy(), settled, nothing, np.float32(0), self._steps
            )
        lost, follow = self._lost(self._steps - 1).numpy(), np.float32(self._following(self._steps))
        return RowAverage(True, self._average[name].numpy(), settled, lost, follow, self._steps)

    def _sgd_step(self, scale: float, rate: float) -> SgdStep:
        config = self.config
        return SgdStep(*map(np.float32, (scale, rate, config.weight_decay, config.momentum)))

    def _adam_step(self, scale: float, rate: float) -> AdamStep:
        decoupled, decay = self.config.server_optimizer == "adamw", self.config.weight_decay
        return AdamStep(
            scale=np.float32(scale),
            rate=np.float32(rate / (1 - _BETA1**self._steps)),
            decay=np.float32(0.0 if decoupled else decay),
            shrink=np.float32(1 - rate * decay if decoupled else 1.0),
            beta1=np.float32(_BETA1),
            beta2=np.float32(_BETA2),
            root=np.float32(math.sqrt(1 - _BETA2**self._steps)),
            epsilon=np.float32(_EPSILON),
        )

    @torch.no_grad()
    def _step_whole(self, gradients: Mapping[str, Tensor], scale: float, rate: float) -> None:
        """Step whole parameters, and let their averages follow."""
        for decayed in (True, False):
            names = [name for name in gradients if (self._parameters[name].dim() > 1) is decayed]
            scaled = [gradients[name].float() * scale for name in names]
            self._move(names, scaled, rate, self.config.weight_decay if decayed else 0.0)
        for name in gradients if self._average else ():
            self._average[name].lerp_(self._parameters[name], self._following(self._steps))

    def _move(self, names: list[str], gradients: list[Tensor], rate: float, weight_decay: float) -> None:
        """Step values and moments in place, each tensor in one pass over the memory (torch's fused kernels)."""
        if not names:
            return
        values = [self._parameters[name] for name in names]
        moments = [[kind[name] for name in names] for kind in self._moments.values()]
        if self.config.server_optimizer == "sgd":
            sgd(
                values,
                gradients,
                [*moments[0]],
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
            moments[0],
            moments[1],
            [],
            [torch.tensor(self._steps - 1.0) for _ in names],  # the kernel counts this step itself
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
        final = {name: value.clone() for name, value in self._average.items()}
        for name, averaged_at in self._averaged_at.items():
            # The rows' values have not changed since their averages were last brought up.
            lost = self._lost(self._steps)[averaged_at]
            final[name].lerp_(self._parameters[name], lost[:, None])
        return final

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

    def _lost(self, step: int) -> Tensor:
        """By the step after which a row's average was right: what of it has been lost by `step`, (step + 1,)."""
        return -torch.expm1(self._log_decays[step] - self._log_decays[: step + 1]).float()

    def _following(self, step: int) -> float:
        """What a step loses of the average, to the value after it."""
        return -math.expm1(self._log_decay(step))

    def _log_decay(self, step: int) -> float:
        """The logarithm of what a step keeps of the average: early on little, for the start is random."""
        return math.log(min(self.config.averaging_decay, step / (step + 10))) if self._average else 0.0

    def _measure(self, gradients: Mapping[str, Tensor]) -> float:
        """Give the norm of the whole gradient; raises ValueError for one that does not fit or is not finite."""
        if set(gradients) != set(self._parameters):
            wrong = sorted(set(gradients) ^ set(self._parameters))
            raise ValueError(f"gradients and parameters differ in {', '.join(wrong)}")
        for name, gradient in gradients.items():
            if gradient.shape != self._parameters[name].shape:
                expected = tuple(self._parameters[name].shape)
                raise ValueError(f"gradient of {name} has shape {tuple(gradient.shape)}, expected {expected}")
            if gradient.is_sparse and name not in self.rowwise:
                raise ValueError(f"gradient of {name} is sparse, but the parameter is not row-wise")
        norms = []
        for name, gradient in sorted(gradients.items()):  # the sum must not depend on who lists them
            values = gradient.coalesce().values() if gradient.is_sparse else gradient
            if not math.isfinite(norm := float(torch.linalg.vector_norm(values.float()))):
                raise ValueError(f"gradient of {name} holds a value that is not finite")
            norms.append(norm)
        return math.hypot(*norms)


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
