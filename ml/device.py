"""Where a model computes; free of ONNX Runtime, so that whoever only starts a service can say it."""

from __future__ import annotations

from typing import Final, Literal, get_args

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]  # auto takes a CUDA device where ONNX Runtime can use one
DEVICE_CHOICES: Final[tuple[DeviceChoice, ...]] = get_args(DeviceChoice)


class DeviceUnavailable(Exception):
    """The device that was asked for cannot be used here; says what to do."""
