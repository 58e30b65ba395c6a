"""The network: a bidirectional LSTM over word embeddings, pooled over all positions of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from ml.model_config import ModelConfig
from ml.vocabulary import PAD

__all__ = [
    "ROW_PARAMETERS",
    "ModelConfig",
    "SentimentLSTM",
    "build_model",
    "extend_vocabulary",
    "initial_parameters",
]

ROW_PARAMETERS: Final = frozenset(
    {"embedding.weight"}
)  # their gradients are rows: those of the words of a batch


class SentimentLSTM(nn.Module):
    """Classifies token sequences; what it says of a text does not depend on the batch's padding.

    Two one-directional LSTMs, the second over each text reversed within its own length. That reads the same
    as a packed bidirectional LSTM and trains twice as fast on a CPU, where packing leaves the fused kernel.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embedding_dim
        self.embedding = nn.Embedding(config.vocabulary_size, width, padding_idx=PAD, sparse=True)
        self.forward_lstm = nn.LSTM(width, config.hidden_dim, batch_first=True)
        self.backward_lstm = nn.LSTM(width, config.hidden_dim, batch_first=True)
        self.output = nn.Linear(4 * config.hidden_dim, config.classes)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Give logits (B, classes) for token_ids (B, T), of whose rows the first lengths (B,) are real."""
        position = torch.arange(token_ids.shape[1], device=token_ids.device)  # (T,)
        real = position < lengths[:, None]  # (B, T)
        mirrored = torch.where(real, lengths[:, None] - 1 - position, position)
        # Whole dimensions are dropped for a whole text (Gal and Ghahramani 2016, arXiv:1512.05287): dropped value
        # by value, the neighbouring positions would give the dropped ones away.
        kept = self.embedding_dropout(
            self.output.weight.new_ones(len(token_ids), 1, self.config.embedding_dim)
        )
        forward = self._read(self.forward_lstm, token_ids, kept)  # (B, T, H)
        # Pooling does not ask for the order of positions, so the mirrored states stay mirrored.
        backward = self._read(self.backward_lstm, token_ids.gather(1, mirrored), kept)
        states = torch.cat([forward, backward], dim=2)  # (B, T, 2H)
        padding = ~real[:, :, None]
        highest = states.masked_fill(padding, -torch.inf).amax(dim=1)  # (B, 2H)
        mean = states.masked_fill(padding, 0.0).sum(dim=1) / lengths[:, None]  # (B, 2H)
        logits: Tensor = self.output(self.dropout(torch.cat([highest, mean], dim=1)))
        return logits

    def _read(self, lstm: nn.LSTM, token_ids: Tensor, kept: Tensor) -> Tensor:
        states: Tensor = lstm(self.embedding(token_ids) * kept)[0]
        return states


def initial_parameters(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Draw the parameters a first training starts from, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in _shape_model(config).named_parameters()}
    parameters = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, value in parameters.items():
        if name == "embedding.weight":
            value.copy_(_embedding_rows(config.vocabulary_size, config.embedding_dim, generator))
            value[PAD] = 0.0
        elif name.startswith(("forward_lstm.weight", "backward_lstm.weight")):
            for gate in value.chunk(4):  # each gate's matrix (H, in) on its own
                (nn.init.orthogonal_ if "hh" in name else nn.init.xavier_uniform_)(gate, generator=generator)
        elif name == "output.weight":
            nn.init.xavier_uniform_(value, generator=generator)
        elif "bias_ih" in name:
            value.chunk(4)[1].fill_(1.0)  # the forget gate starts open (Jozefowicz et al. 2015)
    return parameters


def build_model(config: ModelConfig, parameters: Mapping[str, Tensor], *, copy: bool = True) -> SentimentLSTM:
    """Make a model that holds copies of `parameters`, or themselves: then it follows what changes them in place.

    Raises RuntimeError when names or shapes do not fit.
    """
    model = _shape_model(config)
    held = {name: value.detach().clone() if copy else value.detach() for name, value in parameters.items()}
    model.load_state_dict(held, assign=True)
    return model


def extend_vocabulary(
    parameters: Mapping[str, Tensor], config: ModelConfig, new_size: int, seed: int
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Make room for tokens appended to the vocabulary: old embedding rows stay, new ones are drawn.

    Raises ValueError when `new_size` is smaller than the vocabulary the parameters know.
    """
    known = config.vocabulary_size
    if new_size < known:
        raise ValueError(f"a vocabulary of {known} tokens cannot be extended to {new_size}")
    generator = torch.Generator().manual_seed(seed)
    rows = _embedding_rows(new_size - known, config.embedding_dim, generator)
    extended = {name: value.detach().clone() for name, value in parameters.items()}
    extended["embedding.weight"] = torch.cat([extended["embedding.weight"], rows])
    return replace(config, vocabulary_size=new_size), extended


def _shape_model(config: ModelConfig) -> SentimentLSTM:
    """Make a model whose tensors have shapes but no values: nothing is drawn only to be overwritten."""
    with torch.device("meta"):
        return SentimentLSTM(config)


def _embedding_rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, width, generator=generator) * 0.1
