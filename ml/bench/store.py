"""`python -m ml.bench.store FOLDER`: a store with a model of a first training's size, for a service that is to run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ml.bench.models import Recipe, copy_to_store, keep_models
from ml.bench.processes import ROOT
from ml.training_config import FIRST_TRAINING

# As large as a first model and trained for less long: what it costs to ask is the same.
_RECIPE: Final = Recipe(training=FIRST_TRAINING.with_rounds(6), every=4)


def main(arguments: Sequence[str]) -> int:
    models = keep_models(ROOT / "var" / "bench-inference", _RECIPE, lambda what: print(what, file=sys.stderr))
    copy_to_store(models, Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
