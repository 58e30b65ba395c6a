"""The network's graph in 8-bit integers, and the gate it has to pass before it is served."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from ml.artifact import Quantization, QuantizationFigures
from ml.data import Example
from ml.encoding import EncodedTexts, TextEncoder
from ml.label_set import LABELS
from ml.metrics import evaluate_predictions
from ml.predict import OnnxNetwork
from ml.wide import WidePart

MIN_SAMPLES: Final = 200  # of which one may change its label
MAX_F1_DROP: Final = 0.002
MIN_SAME_LABELS: Final = 0.995
MAX_BATCH_DIFFERENCE: Final = 0.02  # of probabilities
BATCH_SAMPLES: Final = 500  # asked alone as well


def quantize_graph(graph: bytes) -> bytes:
    """Put the LSTM's weights into 8-bit integers, the same bytes for the same graph.

    What flows into it is put into integers while it runs. The rest stays as it is: the rows of the embeddings are
    looked up, not multiplied, and the output layer is so small that converting costs more than it saves. Weights take
    7 of the 8 bits: with all 8, processors without VNNI saturate, and would say something else than those that have it.
    """
    model = onnx.load_model_from_string(graph)
    add_pre_process_metadata(model)  # says that nothing is to be folded or fused before
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], per_channel=True, reduce_range=True)
        quantized: bytes = onnx.load_model(path).SerializeToString(deterministic=True)
    return quantized


def quantize_if_as_good(
    exact: bytes, wide: WidePart | None, encoder: TextEncoder, validation: Sequence[Example]
) -> tuple[bytes | None, Quantization]:
    """Give the graph in 8 bits if labelled samples that were not trained on show it to be as good, and what they show.

    They only decide between two forms of one model: what else they say of it may still be measured on them. How fast
    either is plays no part, since an artifact's digest must not depend on the machine's load.
    """
    if len(validation) < MIN_SAMPLES:
        reason = (
            f"{len(validation)} labelled samples are too few to judge 8 bits by: {MIN_SAMPLES} are wanted"
        )
        return None, Quantization("fp32", reason, len(validation), None)
    quantized = quantize_graph(exact)
    figures = _compare_networks(OnnxNetwork(exact, wide), OnnxNetwork(quantized, wide), encoder, validation)
    failures = _failures(figures)
    if failures:
        return None, Quantization("fp32", "; ".join(failures), len(validation), figures)
    return quantized, Quantization("int8", "as good as fp32 within the limits", len(validation), figures)


def _compare_networks(
    exact: OnnxNetwork, quantized: OnnxNetwork, encoder: TextEncoder, validation: Sequence[Example]
) -> QuantizationFigures:
    texts = encoder.encode([example.text for example in validation])
    from_exact, from_quantized = exact.probabilities(texts), quantized.probabilities(texts)  # (n, C)
    same = float((from_exact.argmax(axis=1) == from_quantized.argmax(axis=1)).mean())
    return QuantizationFigures(
        macro_f1_fp32=_macro_f1(validation, from_exact),
        macro_f1_int8=_macro_f1(validation, from_quantized),
        same_labels=round(same, 6),
        max_abs_difference=_round_up(np.abs(from_exact - from_quantized).max()),
        max_batch_difference=_round_up(_batch_difference(quantized, next(texts.parts(BATCH_SAMPLES)))),
    )


def _batch_difference(network: OnnxNetwork, texts: EncodedTexts) -> float:
    """Give how far a text's probabilities are from those it gets alone.

    In 8 bits there is one scale for all that flows through the network at once, so a text's companions matter.
    """
    together = network.probabilities(texts)
    alone = np.concatenate([network.probabilities(text) for text in texts.parts(1)])
    return float(np.abs(together - alone).max())


def _failures(figures: QuantizationFigures) -> list[str]:
    drop = figures.macro_f1_fp32 - figures.macro_f1_int8
    failures = []
    if drop > MAX_F1_DROP:
        failures.append(f"macro-F1 drops by {drop:.4f}, allowed {MAX_F1_DROP}")
    if figures.same_labels < MIN_SAME_LABELS:
        failures.append(f"{figures.same_labels:.2%} keep their label, wanted {MIN_SAME_LABELS:.1%}")
    if figures.max_batch_difference > MAX_BATCH_DIFFERENCE:
        difference = f"{figures.max_batch_difference:.4f}"
        failures.append(f"a text among others differs by {difference}, allowed {MAX_BATCH_DIFFERENCE}")
    return failures


def _macro_f1(validation: Sequence[Example], probabilities: npt.NDArray[np.float32]) -> float:
    truth = [LABELS.index(example.label) for example in validation]
    return round(evaluate_predictions(truth, probabilities.argmax(axis=1)).macro_f1, 6)


def _round_up(difference: float) -> float:
    """Leave the last bits out, which depend on the processor: an artifact's digest must not."""
    return math.ceil(difference * 1e4) / 1e4
