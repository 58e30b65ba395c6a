"""How large the network is; free of torch, so that artifacts can be read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from ml.label_set import LABELS


@dataclass(frozen=True)
class ModelConfig:
    """The network's size, and what is dropped while it trains."""

    vocabulary_size: int
    embedding_dim: int = 64
    hidden_dim: int = 64
    subword_buckets: int = 0  # rows that words share by their characters, see ml/subwords.py; 0 for none
    gram_buckets: int = 0  # rows of the wide part, for runs of characters, see ml/grams.py; 0 for none
    classes: int = len(LABELS)
    dropout: float = 0.5  # of what is pooled
    embedding_dropout: float = 0.3  # of the embedding's dimensions, for a text at a time
    token_dropout: float = 0.3  # of whole words

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelConfig:
        """Read a configuration back; raises ValueError naming keys that are missing or not known."""
        wrong = set(document) ^ {field.name for field in fields(cls)}
        if wrong:
            raise ValueError(f"network configuration: keys missing or unknown: {', '.join(sorted(wrong))}")
        return cls(**document)


# But for its vocabulary, which is known when the sites have told their words.
FIRST_NETWORK: Final = ModelConfig(vocabulary_size=0, subword_buckets=2**14, gram_buckets=2**17)
