"""Steps of an optimizer on some rows of a matrix, in one pass over the memory.

Torch's kernels step whole tensors only: the rows would have to be copied out of each array, and back. The two loops say
the same of the average: made one, with a choice in the innermost line, a step of Adam took 1.4 times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ml.compiled import compiled

Matrix = npt.NDArray[np.float32]


class RowAverage(NamedTuple):
    """An average (V, E) that follows a matrix, of which rows are stepped."""

    kept: bool  # else there is none, and the rest means nothing
    average: Matrix
    settled: npt.NDArray[np.int64]  # (V,): after how many steps a row of the average was last right
    lost: npt.NDArray[np.float32]  # by that number, 0..1: of the average, to the value, before this step
    follow: np.float32  # 0..1: the same in this step, to the value after it
    step: int  # this one's number, from 1


class AdamStep(NamedTuple):
    """What is the same for all numbers."""

    scale: np.float32  # of the gradient
    rate: np.float32  # divided by the first moment's bias correction
    decay: np.float32  # weight decay that joins the gradient
    shrink: np.float32  # what a decoupled weight decay leaves of the value
    beta1: np.float32
    beta2: np.float32
    root: np.float32  # of the second moment's bias correction
    epsilon: np.float32


class SgdStep(NamedTuple):
    """What is the same for all numbers."""

    scale: np.float32  # of the gradient
    rate: np.float32
    decay: np.float32  # weight decay that joins the gradient
    momentum: np.float32


@compiled
def step_adam_rows(
    value: Matrix,
    first: Matrix,
    second: Matrix,
    averaging: RowAverage,
    rows: npt.NDArray[np.int64],
    gradient: Matrix,
    step: AdamStep,
) -> None:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) and AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

    The value and both moments are (V, E), and change in place where `rows` (R,) says; the gradient is (R, E).
    """
    one = np.float32(1)
    for place in range(len(rows)):
        row = rows[place]
        values, firsts, seconds = value[row], first[row], second[row]
        slopes, averages, lost = gradient[place], averaging.average[row], np.float32(0)
        if averaging.kept:
            lost = averaging.lost[averaging.settled[row]]
            averaging.settled[row] = averaging.step
        for column in range(len(slopes)):
            before = values[column]
            slope = slopes[column] * step.scale + step.decay * before
            m = step.beta1 * firsts[column] + (one - step.beta1) * slope
            v = step.beta2 * seconds[column] + (one - step.beta2) * slope * slope
            after = step.shrink * before - step.rate * m / (np.sqrt(v) / step.root + step.epsilon)
            firsts[column], seconds[column], values[column] = m, v, after
            if averaging.kept:
                settled = averages[column] + lost * (before - averages[column])
                averages[column] = settled + averaging.follow * (after - settled)


@compiled
def step_sgd_rows(
    value: Matrix,
    velocity: Matrix,
    averaging: RowAverage,
    rows: npt.NDArray[np.int64],
    gradient: Matrix,
    step: SgdStep,
) -> None:
    """SGD with momentum, as torch.optim.SGD has it: the rate multiplies the velocity, not the gradient."""
    for place in range(len(rows)):
        row = rows[place]
        values, velocities = value[row], velocity[row]
        slopes, averages, lost = gradient[place], averaging.average[row], np.float32(0)
        if averaging.kept:
            lost = averaging.lost[averaging.settled[row]]
            averaging.settled[row] = averaging.step
        for column in range(len(slopes)):
            before = values[column]
            moved = step.momentum * velocities[column] + slopes[column] * step.scale + step.decay * before
            after = before - step.rate * moved
            velocities[column], values[column] = moved, after
            if averaging.kept:
                settled = averages[column] + lost * (before - averages[column])
                averages[column] = settled + averaging.follow * (after - settled)
