"""What a served model says of texts; the command `python -m ml.predict` is in ml/predict_command.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from ml.artifact import Artifact, ArtifactError, Precision
from ml.data import pad_rows
from ml.device import Device, DeviceChoice, DeviceUnavailable
from ml.encoding import EncodedTexts, TextEncoder
from ml.prediction import Prediction
from ml.tokenizer import Tokenizer
from ml.wide import WidePart, take_wide_part

# Of probabilities: rounding and other processors stay far below it, other models do not. In 8 bits a rounding that
# falls the other way is a step of a 255th.
GOLDEN_TOLERANCE: Final[Mapping[Precision, float]] = {"fp32": 1e-3, "int8": 5e-3}
BATCH_TEXTS: Final = 64
BATCH_TOKENS: Final = 2048  # padding included; bounds the memory that a batch takes
# That one more text may add, in tokens, beside a part of its own length: another batch costs as much as some thirty
# tokens and another pass over each position. Whoever joins now is padded for all that join later.
BATCH_PADDING: Final = 16
PADDING_OF_LENGTH: Final = 0.25
_PROVIDERS: Final[Mapping[Device, list[str]]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
_LIMITS: Final[Mapping[Device, Mapping[str, int]]] = {
    "cpu": {"max_texts": BATCH_TEXTS, "max_tokens": BATCH_TOKENS, "max_padding": BATCH_PADDING},
    # Of a GPU no more is known than that it wants much at once.
    "cuda": {"max_texts": 1024, "max_tokens": 2**15, "max_padding": 2**12},
}
_OUTPUTS: Final = ["probabilities"]


class OnnxNetwork:
    """The network in ONNX Runtime, and its wide part beside it; may be called from several threads at once."""

    def __init__(
        self, onnx_bytes: bytes, wide: WidePart | None = None, threads: int = 1, device: Device = "cpu"
    ) -> None:
        """Build a session; raises ArtifactError when the graph cannot be understood, and DeviceUnavailable."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A plan of memory for each shape of a batch, of which there are thousands, is kept for good and pays for none.
        options.enable_mem_pattern = False
        # The runtime keeps its arena, and in it what a batch of BATCH_TOKENS takes: else a text costs a thirtieth more.
        # Idle threads must not burn a core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if device == "cuda":
            expect_cuda()
        try:
            self._session = onnxruntime.InferenceSession(onnx_bytes, options, providers=_PROVIDERS[device])
        except Exception as error:  # the runtime raises its own unrelated types
            raise ArtifactError(f"model.onnx: ONNX Runtime cannot load it: {error}") from error
        if device == "cuda":  # without a driver the runtime goes on without it, and says so to nobody
            expect_cuda(self._session.get_providers())
        self._limits = _LIMITS[device]
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._wide = wide
        if "wide_logits" in self._inputs and wide is None:
            raise ArtifactError("model.onnx: it adds a wide part, of which there are no weights")
        self._classes: int = self._session.get_outputs()[0].shape[1]

    def probabilities(self, texts: EncodedTexts) -> npt.NDArray[np.float32]:
        """Give class probabilities (n, classes) for n texts of any lengths."""
        if "token_ids" in self._inputs:
            return self._probabilities_of_format_2(texts)
        wide = self._wide_logits(texts)
        if len(texts) == 1:
            return self._run(texts.token_ids[:, None], texts.lengths.astype(np.int32), wide)
        result = np.empty((len(texts), self._classes), np.float32)
        if not len(texts):
            return result
        order = np.argsort(texts.lengths, kind="stable")
        lengths, token_ids, wide = texts.lengths[order].astype(np.int32), texts.by_time(order), wide[order]
        for batch in plan_batches(lengths.tolist(), **self._limits):
            longest = lengths[batch.stop - 1]
            result[order[batch]] = self._run(token_ids[:longest, batch], lengths[batch], wide[batch])
        return result

    def _run(
        self,
        token_ids: npt.NDArray[np.int32],  # (time, texts)
        lengths: npt.NDArray[np.int32],  # (texts,)
        wide: npt.NDArray[np.float32],  # (texts, classes), or (texts,) where nobody looks at it
    ) -> npt.NDArray[np.float32]:
        feed: dict[str, npt.NDArray[Any]] = {"token_ids_by_time": token_ids, "lengths": lengths}
        if "wide_logits" in self._inputs:
            feed["wide_logits"] = wide
        probabilities: npt.NDArray[np.float32] = self._session.run(_OUTPUTS, feed)[0]
        return probabilities

    def _wide_logits(self, texts: EncodedTexts) -> npt.NDArray[np.float32]:
        if self._wide is None:
            return np.empty(len(texts), np.float32)
        return self._wide.logits(texts.grams, texts.gram_counts)

    def _probabilities_of_format_2(self, texts: EncodedTexts) -> npt.NDArray[np.float32]:
        """Ask a graph of an artifact before format 3, which reads text by text and holds the wide part."""
        each = list(texts)
        order = np.argsort(texts.lengths, kind="stable")
        result = np.empty((len(texts), self._classes), np.float32)
        for batch in plan_batches(texts.lengths[order].tolist(), **self._limits):
            chosen = [each[row] for row in order[batch]]
            feed = {
                "token_ids": pad_rows([text.token_ids for text in chosen]),
                "lengths": np.array([len(text.token_ids) for text in chosen], np.int64),
            }
            if "grams" in self._inputs:
                feed["grams"] = pad_rows([text.grams for text in chosen])
            result[order[batch]] = self._session.run(_OUTPUTS, feed)[0]
        return result


def expect_cuda(providers: Sequence[str] | None = None) -> None:
    """Raise DeviceUnavailable when CUDA is not among a session's providers, or those that there are at all."""
    found = onnxruntime.get_available_providers() if providers is None else providers
    if "CUDAExecutionProvider" not in found:
        raise DeviceUnavailable(
            f"device cuda cannot be used: ONNX Runtime {onnxruntime.__version__} has {', '.join(found)} here. "
            "Install onnxruntime-gpu in the place of onnxruntime, with the driver and CUDA that it wants, "
            "or use the device cpu"
        )


def plan_batches(
    ascending: Sequence[int],
    *,
    max_texts: int = BATCH_TEXTS,
    max_tokens: int = BATCH_TOKENS,
    max_padding: int = BATCH_PADDING,
) -> Iterator[slice]:
    """Part texts, given by their lengths in tokens, the shortest first, into batches of similar length.

    A batch holds at most `max_texts`, and `max_tokens` with the padding up to its longest text; a text longer than
    that is a batch of its own. A text that is so much longer than the one before it that the batch would be padded by
    more than `max_padding` and PADDING_OF_LENGTH of its length begins another.
    """
    start, longest = 0, 0
    for stop, length in enumerate(ascending):
        texts = stop - start
        full = texts == max_texts or (texts + 1) * length > max_tokens
        padding = texts * (length - longest)
        if texts and (full or padding > max_padding + PADDING_OF_LENGTH * length):
            yield slice(start, stop)
            start = stop
        longest = length
    if start < len(ascending):
        yield slice(start, len(ascending))


class Predictor:
    """One artifact ready to answer; may be called from several threads at once."""

    def __init__(self, artifact: Artifact, threads: int = 1, device: Device = "cpu") -> None:
        """Prepare tokenizer and session; raises ArtifactError when the graph cannot be loaded, and DeviceUnavailable.

        On a CUDA device the network computes in fp32 whatever the artifact says: only CPUs have the LSTM in 8 bits.
        """
        self.digest: Final = artifact.digest
        self.device: Final = device
        self.labels: Final = artifact.labels
        self._encoder = TextEncoder(artifact.tokenizer, artifact.vocabulary, artifact.max_length)
        quantized = artifact.onnx_int8 if device == "cpu" else None
        self.precision: Final[Precision] = "fp32" if quantized is None else "int8"
        wide = take_wide_part(artifact.weights) if artifact.network.gram_buckets else None
        self._network = OnnxNetwork(quantized or artifact.onnx, wide, threads, device)

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts texts into the tokens that this model knows."""
        return self._encoder.tokenizer

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Do the first half of the work, in which no network takes part: give each text as the network reads it."""
        return self._encoder.encode(texts)

    def probabilities_of(self, encoded: EncodedTexts) -> npt.NDArray[np.float32]:
        """Do the second half: give class probabilities (n, labels) for n texts that this predictor encoded."""
        return self._network.probabilities(encoded)

    def predictions_of(self, probabilities: npt.NDArray[np.float32]) -> list[Prediction]:
        """Put rows of class probabilities (n, labels) into words."""
        return [self._prediction(row) for row in probabilities.tolist()]

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Give class probabilities (n, labels) for n texts."""
        return self.probabilities_of(self.encode(texts))

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Say what each text expresses, in order; a text without any word gets an answer too."""
        return self.predictions_of(self.probabilities(texts))

    def _prediction(self, row: Sequence[float]) -> Prediction:
        score = max(row)
        return Prediction(self.labels[row.index(score)], score, dict(zip(self.labels, row, strict=True)))


def open_predictor(artifact: Artifact, threads: int, device: DeviceChoice) -> Predictor:
    """Prepare a predictor where it is wanted, and ask for its golden texts.

    Raises ArtifactError, and DeviceUnavailable where another device than `auto` cannot be used.
    """
    try:
        predictor = Predictor(artifact, threads, "cpu" if device == "cpu" else "cuda")
    except DeviceUnavailable:
        if device != "auto":
            raise
        predictor = Predictor(artifact, threads)
    check_golden(predictor, artifact)
    return predictor


def check_golden(predictor: Predictor, artifact: Artifact) -> None:
    """Ask for the artifact's golden texts; raises ArtifactError naming the first that gets another answer."""
    tolerance = GOLDEN_TOLERANCE[predictor.precision]
    for case in artifact.golden:
        answer = predictor.probabilities([case.text])[
            0
        ]  # alone: in 8 bits a text's companions matter a little
        recorded = case.int8 if predictor.precision == "int8" else case.probabilities
        difference = float(np.abs(answer - np.array(recorded, np.float64)).max())
        if not difference <= tolerance:  # so written, a NaN is refused as well
            raise ArtifactError(
                f"golden.json: probabilities of {case.text[:20]!r} are {difference:.4f} away from those "
                f"recorded, allowed {tolerance}"
            )


if __name__ == "__main__":
    from ml.predict_command import run

    raise SystemExit(run())
