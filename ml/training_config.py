"""How a training runs; free of torch, so that whoever starts a run can choose its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, get_args

StrategyName = Literal["fedsgd", "fedopt", "fedavg", "scaffold"]
OptimizerName = Literal["sgd", "adam", "adamw"]
EncodingName = Literal["lossless", "fp16", "topk"]
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "strategy": get_args(StrategyName),
    "server_optimizer": get_args(OptimizerName),
    "encoding": get_args(EncodingName),
}


@dataclass(frozen=True)
class TrainingConfig:
    """How a training runs; a round is one optimizer step over `global_batch_size` samples of all sites."""

    rounds: int
    global_batch_size: int
    learning_rate: float  # its peak, after the warm-up
    final_rate_fraction: float = 0.05  # of the peak, where the cosine ends
    warmup_rounds: int = 20
    weight_decay: float = 0.01
    clip_norm: float = 1.0  # of the averaged gradient, all tensors together
    label_smoothing: float = 0.05
    averaging_decay: float = 0.98  # of the running average of parameters that becomes the result; 0 for none
    max_length: int = 128  # tokens of a text that the network reads
    seed: int = 20
    server_optimizer: OptimizerName = "adamw"
    momentum: float = 0.9  # of "sgd"
    strategy: StrategyName = "fedsgd"  # see federated/strategies.py
    local_steps: int = 1  # batches that a site trains on in a round, for strategies that train at the sites
    local_learning_rate: float = (
        0.0  # its peak, of plain SGD at the sites; it warms up and decays as the server's
    )
    encoding: EncodingName = "lossless"  # of what sites send up, see federated/encoding.py

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, one of {', '.join(known)} is wanted")
        if self.local_steps < 1 or self.local_learning_rate < 0:
            raise ValueError(
                f"local_steps must be at least 1 and local_learning_rate at least 0, not {self.local_steps} "
                f"and {self.local_learning_rate}"
            )
        if self.strategy != "fedsgd" and self.local_learning_rate == 0:
            raise ValueError(f"{self.strategy} trains at the sites: local_learning_rate must be above 0")

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainingConfig:
        """Read a configuration back; raises ValueError naming keys that are missing or not known."""
        wrong = set(document) ^ {field.name for field in fields(cls)}
        if wrong:
            raise ValueError(f"training configuration: keys missing or unknown: {', '.join(sorted(wrong))}")
        return cls(**document)

    def with_rounds(self, rounds: int) -> TrainingConfig:
        """Give the same training over another number of rounds, its warm-up shortened in proportion."""
        return replace(self, rounds=rounds, warmup_rounds=min(self.warmup_rounds, rounds // 10))


FIRST_TRAINING: Final = TrainingConfig(rounds=160, global_batch_size=256, learning_rate=4e-3)
RETRAINING: Final = TrainingConfig(rounds=60, global_batch_size=256, learning_rate=1e-3, warmup_rounds=5)
