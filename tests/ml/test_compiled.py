"""Functions that become machine code when they are first called."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np

from ml.compiled import compiled


def test_a_function_whose_code_cannot_be_kept_anywhere_is_compiled_all_the_same() -> None:
    namespace: dict[str, Any] = {}
    exec(
        "def double(numbers):\n    for place in range(len(numbers)):\n        numbers[place] *= 2\n",
        namespace,
    )
    numbers = np.arange(4.0)
    compiled(namespace["double"])(numbers)
    assert numbers.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_trainer_does_without_the_compiler() -> None:
    """It steps and sums nothing itself, and there is one for each site."""
    code = "import sys, federated.trainer; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
