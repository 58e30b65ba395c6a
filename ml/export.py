"""From trained weights to an artifact: the ONNX graph, the proof that it says the same, the golden texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ml.artifact import (
    ArtifactContents,
    ArtifactError,
    GoldenCase,
    Parity,
    Weights,
    WrittenArtifact,
    write_artifact,
)
from ml.data import Example, pad_rows
from ml.encoding import EncodedTexts, TextEncoder
from ml.label_set import LABELS
from ml.model import SentimentLSTM, build_model, initial_parameters
from ml.model_config import ModelConfig
from ml.predict import OnnxNetwork
from ml.quantize import quantize_if_as_good
from ml.tokenizer import TokenizerSettings
from ml.vocabulary import PAD, Vocabulary
from ml.wide import WidePart, take_wide_part

MAX_DIFFERENCE: Final = 1e-4  # of probabilities between torch and ONNX Runtime
PARITY_TEXTS: Final = 200  # of the validation samples
GOLDEN_TEXTS: Final = (
    "这本书很好看，强烈推荐！",
    "太差了，再也不会买了。",
    "一般般，没什么特别的。",
    "物流很快，包装也不错👍",
    "😀😭🤔",
    "   \u200b\n",
    "iPhone 15 的 battery 不行，差评!!!",
    "不是不好，只是没有想象中那么好",
    "房间很干净，但是服务员的态度实在让人无法接受。" * 40,
    "。",
)
_LSTMS: Final = {"forward": "forward_lstm", "reverse": "backward_lstm"}  # direction in ONNX → name in torch
_OPSET: Final = 17
_IR_VERSION: Final = (
    8  # of the same age as the opset; onnx would write its newest, which older runtimes refuse
)


def model_weights(model: SentimentLSTM) -> Weights:
    """Take a model's parameters as float32 arrays by name."""
    return {name: value.detach().numpy().astype(np.float32) for name, value in model.named_parameters()}


def export_artifact(
    parent_dir: Path,
    *,
    weights: Mapping[str, npt.NDArray[np.float32]],
    config: ModelConfig,
    tokenizer: TokenizerSettings,
    vocabulary: Vocabulary,
    max_length: int,
    validation: Sequence[Example] = (),
) -> WrittenArtifact:
    """Package trained weights as an artifact in `parent_dir`.

    `validation` are labelled samples that were not trained on. The first of them join the golden texts in the check of
    parity, and all of them decide whether the model is served in 8-bit integers (see ml/quantize.py); with too few it
    is not. Raises ArtifactError when weights do not fit the configuration or are not finite, when the graph and the
    network disagree by more than MAX_DIFFERENCE, and when the disk refuses.
    """
    _check_weights(weights, config, vocabulary)
    arrays = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
    model = build_model(
        config,
        {name: torch.from_numpy(value.copy()) for name, value in arrays.items()},
        words=vocabulary.tokens,
    ).eval()
    graph = build_onnx(model)
    encoder = TextEncoder(tokenizer, vocabulary, max_length)
    texts = [*GOLDEN_TEXTS, *(example.text for example in validation[:PARITY_TEXTS])]
    parity = check_parity(model, graph, encoder, texts)
    if parity.max_abs_difference > MAX_DIFFERENCE or not parity.same_labels:
        raise ArtifactError(
            f"model.onnx and the trained network disagree: {parity}, allowed {MAX_DIFFERENCE}"
        )
    wide = take_wide_part(arrays)
    quantized, quantization = quantize_if_as_good(graph, wide, encoder, validation)
    contents = ArtifactContents(
        weights=arrays,
        onnx=graph,
        onnx_int8=quantized,
        vocabulary=vocabulary,
        network=config,
        tokenizer=tokenizer,
        labels=LABELS,
        max_length=max_length,
        golden=_golden_cases(graph, quantized, wide, encoder),
        parity=parity,
        quantization=quantization,
    )
    return write_artifact(parent_dir, contents)


def check_parity(
    model: SentimentLSTM, onnx_bytes: bytes, encoder: TextEncoder, texts: Sequence[str], batch_size: int = 64
) -> Parity:
    """Compare the network in torch, one padded batch after another, with the graph in ONNX Runtime."""
    encoded = encoder.encode(texts)
    network = OnnxNetwork(onnx_bytes, take_wide_part(model_weights(model)))
    from_graph = network.probabilities(encoded)  # (n, classes)
    from_torch = np.concatenate([_torch_probabilities(model, part) for part in encoded.parts(batch_size)])
    difference = float(np.abs(from_graph - from_torch).max())
    # Where the two best classes are closer than rounding, either answer is the same answer.
    best_two = np.sort(from_torch, axis=1)[:, -2:]
    decided = best_two[:, 1] - best_two[:, 0] > 2 * MAX_DIFFERENCE
    same = bool((from_graph.argmax(axis=1) == from_torch.argmax(axis=1))[decided].all())
    # Rounded up to a millionth: the last bits depend on the processor, and an artifact's digest must not.
    return Parity(math.ceil(difference * 1e6) / 1e6, same, len(texts))


def build_onnx(model: SentimentLSTM) -> bytes:
    """Build the network as an ONNX graph, the same bytes for the same weights.

    Inputs: token_ids_by_time (time, batch) and lengths (batch), int32; where the network has a wide part, what it adds
    to the logits as wide_logits (batch, classes), float32 (see ml/wide.py). Output: probabilities (batch, classes),
    float32. Written node by node: no tracer is needed, and lengths become the LSTM's own sequence_lens. A word's
    subwords are added to its vector once, here: serving looks up one row a word.
    """
    config = model.config
    with torch.no_grad():
        vectors = model.word_vectors(torch.arange(config.vocabulary_size)).numpy()
    vectors[PAD] = 0.0  # so that padding adds nothing to a sum
    constants = _graph_constants(model_weights(model), vectors)
    tensor = helper.make_tensor_value_info
    inputs = [
        tensor("token_ids_by_time", TensorProto.INT32, ["time", "batch"]),
        tensor("lengths", TensorProto.INT32, ["batch"]),
    ]
    if config.gram_buckets:
        inputs.append(tensor("wide_logits", TensorProto.FLOAT, ["batch", config.classes]))
    graph = helper.make_graph(
        _graph_nodes(config),
        "sentiment",
        inputs,
        [tensor("probabilities", TensorProto.FLOAT, ["batch", config.classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="huisheng"
    )
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    graph_bytes: bytes = model.SerializeToString(deterministic=True)
    return graph_bytes


def _graph_constants(weights: Weights, vectors: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    constants: dict[str, npt.NDArray[Any]] = {
        "embedding": vectors,  # (V, E)
        "output_weight": weights["output.weight"],  # (classes, 2 (2H + E))
        "output_bias": weights["output.bias"],  # (classes,)
        "axis_0": np.array([0], np.int64),
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "nothing": np.array(0.0, np.float32),
        "lowest": np.array(np.finfo(np.float32).min, np.float32),
        "flat": np.array([0, -1], np.int64),
    }
    for direction, name in _LSTMS.items():
        bias = [_onnx_gates(weights[f"{name}.bias_{part}_l0"]) for part in ("ih", "hh")]
        constants |= {
            f"W_{direction}": _onnx_gates(weights[f"{name}.weight_ih_l0"])[None],  # (1, 4H, E)
            f"R_{direction}": _onnx_gates(weights[f"{name}.weight_hh_l0"])[None],  # (1, 4H, H)
            f"B_{direction}": np.concatenate(bias)[None],  # (1, 8H)
        }
    return constants


def _onnx_gates(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Reorder a stack of gates (4H, ...) from torch's input, forget, cell, output to ONNX's i, o, f, c."""
    input_gate, forget, cell, output = np.split(value, 4)
    return np.concatenate([input_gate, output, forget, cell])


def _graph_nodes(config: ModelConfig) -> list[onnx.NodeProto]:
    """Give the nodes in order."""
    node = helper.make_node
    # What is as wide is pooled together.
    stacks = {"states": ["forward", "reverse"], "vectors": ["words"]}
    if config.embedding_dim == config.hidden_dim:
        stacks = {"read": ["forward", "reverse", "words"]}
    return [
        node("Gather", ["embedding", "token_ids_by_time"], ["words_by_time"]),  # (T, B, E)
        *(
            node(
                "LSTM",
                ["words_by_time", f"W_{direction}", f"R_{direction}", f"B_{direction}", "lengths"],
                [f"{direction}_states"],  # (T, 1, B, H)
                direction=direction,
                hidden_size=config.hidden_dim,
            )
            for direction in _LSTMS
        ),
        *(
            node("Squeeze", [f"{direction}_states", "axis_1"], [f"{direction}_by_time"])
            for direction in _LSTMS
        ),
        node(
            "Cast", ["token_ids_by_time"], ["real"], to=TensorProto.BOOL
        ),  # (T, B); no id but padding's is 0
        node("Where", ["real", "nothing", "lowest"], ["sink"]),
        node("Unsqueeze", ["sink", "axis_2"], ["sink_of_position"]),  # (T, B, 1)
        *(node for name, parts in stacks.items() for node in _pool(name, parts)),
        node("Concat", [f"{name}_highest" for name in stacks], ["highest"], axis=1),  # (B, 2H + E)
        # Where there is only padding, the LSTM's states are zero, and so is the padding's own vector.
        node("Concat", [f"{name}_sum" for name in stacks], ["sum"], axis=1),
        node("Cast", ["lengths"], ["lengths_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["lengths_float", "axis_1"], ["length_column"]),  # (B, 1)
        node("Div", ["sum", "length_column"], ["mean"]),  # (B, 2H + E)
        node("Concat", ["highest", "mean"], ["pooled"], axis=1),  # (B, 2 (2H + E))
        node("Gemm", ["pooled", "output_weight", "output_bias"], ["deep_logits"], transB=1),
        (
            node("Add", ["deep_logits", "wide_logits"], ["logits"])
            if config.gram_buckets
            else node("Identity", ["deep_logits"], ["logits"])
        ),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]


def _pool(name: str, parts: Sequence[str]) -> list[onnx.NodeProto]:
    """Give the nodes that take the highest and the sum (B, n width) over the positions of n parts (T, B, width).

    The parts are laid one after another first: over an inner axis the runtime takes the highest of several values at
    once, over the first one value after another. What is padding is made too low to be the highest by adding to it,
    which takes the runtime a quarter of the time of choosing.
    """
    node = helper.make_node
    return [
        *(node("Unsqueeze", [f"{part}_by_time", "axis_0"], [f"{part}_of_{name}"]) for part in parts),
        node("Concat", [f"{part}_of_{name}" for part in parts], [name], axis=0),  # (n, T, B, width)
        node("Add", [name, "sink_of_position"], [f"{name}_sunk"]),
        node(
            "ReduceMax", [f"{name}_sunk"], [f"{name}_highest_by_part"], axes=[1], keepdims=0
        ),  # (n, B, width)
        node("ReduceSum", [name, "axis_1"], [f"{name}_sum_by_part"], keepdims=0),
        *(
            step
            for pooled in (f"{name}_highest", f"{name}_sum")
            for step in (
                node("Transpose", [f"{pooled}_by_part"], [f"{pooled}_by_text"], perm=[1, 0, 2]),
                node("Reshape", [f"{pooled}_by_text", "flat"], [pooled]),  # (B, n width)
            )
        ),
    ]


def _torch_probabilities(model: SentimentLSTM, texts: EncodedTexts) -> npt.NDArray[np.float32]:
    rows = [text.token_ids for text in texts]
    with torch.no_grad():
        lengths = torch.from_numpy(texts.lengths)
        grams = torch.from_numpy(pad_rows([text.grams for text in texts]))
        logits: torch.Tensor = model(torch.from_numpy(pad_rows(rows)), lengths, grams)
        return np.asarray(logits.softmax(dim=1).numpy(), dtype=np.float32)


def _golden_cases(
    exact: bytes, quantized: bytes | None, wide: WidePart | None, encoder: TextEncoder
) -> tuple[GoldenCase, ...]:
    encoded = encoder.encode(GOLDEN_TEXTS)
    rows = _golden_rows(OnnxNetwork(exact, wide), encoded)
    int8 = [None] * len(rows) if quantized is None else _golden_rows(OnnxNetwork(quantized, wide), encoded)
    return tuple(GoldenCase(*case) for case in zip(GOLDEN_TEXTS, rows, int8, strict=True))


def _golden_rows(network: OnnxNetwork, encoded: EncodedTexts) -> list[tuple[float, ...]]:
    rows = [network.probabilities(text)[0] for text in encoded.parts(1)]
    # Rounded, so that processors that differ in the last bits still make the same artifact.
    return [tuple(round(float(value), 4) for value in row) for row in rows]


def _check_weights(
    weights: Mapping[str, npt.NDArray[np.float32]], config: ModelConfig, vocabulary: Vocabulary
) -> None:
    if config.vocabulary_size != len(vocabulary):
        raise ArtifactError(
            f"the network knows {config.vocabulary_size} tokens, the vocabulary {len(vocabulary)}"
        )
    if config.classes != len(LABELS):
        raise ArtifactError(f"the network has {config.classes} classes, the label set {len(LABELS)}")
    expected = {name: tuple(value.shape) for name, value in initial_parameters(config, seed=0).items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ArtifactError(f"weights: {name} has shape {found.get(name)}, expected {expected.get(name)}")
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise ArtifactError(f"weights: {name} holds a value that is not finite: the training diverged")
