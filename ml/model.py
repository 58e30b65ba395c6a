"""The network: a bidirectional LSTM over words, pooled with the words themselves, beside a wide linear part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.grams import NO_GRAM, WIDE_SCALE
from ml.model_config import ModelConfig
from ml.subwords import NONE, subword_ids
from ml.vocabulary import PAD, RESERVED

__all__ = [
    "ROW_PARAMETERS",
    "ModelConfig",
    "SentimentLSTM",
    "build_model",
    "count_parameters",
    "extend_vocabulary",
    "initial_parameters",
]

# Their gradients are rows: those of the words of a batch.
ROW_PARAMETERS: Final = frozenset({"embedding.weight", "subwords.weight", "grams.weight"})


class SentimentLSTM(nn.Module):
    """Classifies token sequences; what it says of a text does not depend on the batch's padding.

    A word's vector is its own row of the embedding and the mean of its subwords' rows. Two one-directional LSTMs read
    the vectors, the second over each text reversed within its own length. That reads the same as a packed
    bidirectional LSTM and trains twice as fast on a CPU, where packing leaves the fused kernel. The wide part adds a
    row of logits for each run of characters (Cheng et al. 2016, Wide & Deep Learning, arXiv:1606.07792).
    """

    def __init__(self, config: ModelConfig, subword_ids: Tensor | None = None) -> None:
        """`subword_ids` (V, S) names the subwords of each token of the vocabulary, where the network has any."""
        super().__init__()
        self.config = config
        width = config.embedding_dim
        self.embedding = _table(config.vocabulary_size, width, PAD)
        self.subword_ids = subword_ids
        if config.subword_buckets:
            self.subwords = _table(config.subword_buckets, width, NONE)
        if config.gram_buckets:
            self.grams = _table(config.gram_buckets, config.classes, NO_GRAM)
        self.forward_lstm = nn.LSTM(width, config.hidden_dim, batch_first=True)
        self.backward_lstm = nn.LSTM(width, config.hidden_dim, batch_first=True)
        self.output = nn.Linear(2 * (width + 2 * config.hidden_dim), config.classes)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.token_dropout = nn.Dropout(config.token_dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, token_ids: Tensor, lengths: Tensor, grams: Tensor) -> Tensor:
        """Give logits (B, classes) for token_ids (B, T), of whose rows the first lengths (B,) are real.

        `grams` (B, G) are the texts' runs of characters as `hash_grams` numbers them, padded with NO_GRAM.
        """
        position = torch.arange(token_ids.shape[1], device=token_ids.device)  # (T,)
        real = position < lengths[:, None]  # (B, T)
        mirrored = torch.where(real, lengths[:, None] - 1 - position, position)
        words = self._drop(self._embed(token_ids))  # (B, T, E)
        forward: Tensor = self.forward_lstm(words)[0]  # (B, T, H)
        # Pooling does not ask for the order of positions, so the mirrored states stay mirrored.
        backward: Tensor = self.backward_lstm(words.gather(1, mirrored[:, :, None].expand_as(words)))[0]
        states = torch.cat([forward, backward, words], dim=2)  # (B, T, 2H + E)
        padding = ~real[:, :, None]
        highest = states.masked_fill(padding, -torch.inf).amax(dim=1)  # (B, 2H + E)
        mean = states.masked_fill(padding, 0.0).sum(dim=1) / lengths[:, None]  # (B, 2H + E)
        logits: Tensor = self.output(self.dropout(torch.cat([highest, mean], dim=1)))
        if self.config.gram_buckets:
            logits = logits + self._wide_logits(grams)
        return logits

    def _wide_logits(self, grams: Tensor) -> Tensor:
        present = grams != NO_GRAM  # (B, G)
        rows = (1 + grams % (self.config.gram_buckets - 1)) * present
        count = present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
        logits: Tensor = self.grams(rows).sum(dim=1) * (WIDE_SCALE / count.sqrt())  # (B, classes)
        return logits

    def word_vectors(self, token_ids: Tensor) -> Tensor:
        """Give the vectors (N, E) of tokens (N,): a row of their own and the mean of their subwords'."""
        vectors: Tensor = self.embedding(token_ids)
        if self.subword_ids is not None:
            ids = self.subword_ids[token_ids]  # (N, S)
            count = (ids != NONE).sum(dim=1, keepdim=True).clamp(min=1)
            vectors = vectors + self.subwords(ids).sum(dim=1) / count
        return vectors

    def _embed(self, token_ids: Tensor) -> Tensor:
        different, places = torch.unique(token_ids, return_inverse=True)
        vectors: Tensor = functional.embedding(places, self.word_vectors(different))
        return vectors

    def _drop(self, words: Tensor) -> Tensor:
        """Drop words, and dimensions of all of a text's words.

        Whole dimensions are dropped for a whole text (Gal and Ghahramani 2016, arXiv:1512.05287): dropped value by
        value, the neighbouring positions would give the dropped ones away. Words are dropped without scaling up the
        others: a text with fewer words is a text.
        """
        dimensions = self.embedding_dropout(words.new_ones(len(words), 1, words.shape[2]))  # (B, 1, E)
        kept = self.token_dropout(words.new_ones(*words.shape[:2], 1)) > 0  # (B, T, 1)
        dropped: Tensor = words * dimensions * kept
        return dropped


def initial_parameters(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Draw the parameters a first training starts from, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in _shape_model(config).named_parameters()}
    parameters = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, value in parameters.items():
        if name in ("embedding.weight", "subwords.weight"):
            value.copy_(_embedding_rows(len(value), config.embedding_dim, generator))
            value[PAD] = 0.0  # of the subwords NONE
        elif name.startswith(("forward_lstm.weight", "backward_lstm.weight")):
            for gate in value.chunk(4):  # each gate's matrix (H, in) on its own
                (nn.init.orthogonal_ if "hh" in name else nn.init.xavier_uniform_)(gate, generator=generator)
        elif name == "output.weight":
            nn.init.xavier_uniform_(value, generator=generator)
        elif "bias_ih" in name:
            value.chunk(4)[1].fill_(1.0)  # the forget gate starts open (Jozefowicz et al. 2015)
    return parameters


def count_parameters(config: ModelConfig) -> int:
    """Count the network's parameters."""
    return sum(value.numel() for value in _shape_model(config).parameters())


def build_model(
    config: ModelConfig,
    parameters: Mapping[str, Tensor],
    *,
    words: Sequence[str] = (),
    copy: bool = True,
) -> SentimentLSTM:
    """Make a model that holds copies of `parameters`, or themselves: then it follows what changes them in place.

    `words` are the vocabulary's tokens; a network with subwords wants them. Raises RuntimeError when names or shapes
    do not fit, ValueError when the words are not as many as the network knows.
    """
    model = _shape_model(config)
    held = {name: value.detach().clone() if copy else value.detach() for name, value in parameters.items()}
    model.load_state_dict(held, assign=True)
    if config.subword_buckets:
        if len(words) != config.vocabulary_size:
            raise ValueError(f"{len(words)} words for a network of {config.vocabulary_size} tokens")
        ids = subword_ids(words, config.subword_buckets)
        ids[: len(RESERVED)] = NONE  # these tokens are no words
        model.subword_ids = torch.from_numpy(ids).to(model.output.weight.device)
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


def _table(rows: int, width: int, padding: int) -> nn.Embedding:
    """Make an embedding of trainable rows whose values are nobody's yet.

    Drawing them on the meta device imports torch's compiler: two seconds and 70 MB in every process that trains.
    """
    values = torch.empty(rows, width)
    table: nn.Embedding = nn.Embedding.from_pretrained(values, freeze=False, padding_idx=padding, sparse=True)
    return table


def _embedding_rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, width, generator=generator) * 0.1
