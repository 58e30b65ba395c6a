"""What a served model says of texts; also the command `python -m ml.predict`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from ml.artifact import Artifact, ArtifactError, Precision, load_artifact
from ml.data import pad_rows
from ml.grams import hash_normalized
from ml.prediction import Prediction
from ml.text import normalize_text
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.vocabulary import Vocabulary

# Of probabilities: rounding and other processors stay far below it, other models do not. In 8 bits a rounding that
# falls the other way is a step of a 255th.
GOLDEN_TOLERANCE: Final[Mapping[Precision, float]] = {"fp32": 1e-3, "int8": 5e-3}
_OUTPUTS: Final = ["probabilities"]
BATCH_TEXTS: Final = 64
BATCH_TOKENS: Final = 4096  # padding included; bounds memory and the time that one call keeps a core


@dataclass(frozen=True)
class EncodedText:
    """A text as a network reads it."""

    token_ids: list[int]  # at least one
    grams: npt.NDArray[np.int64]  # its runs of characters


class TextEncoder:
    """Turns texts into numbers the way one model was trained on them."""

    def __init__(self, tokenizer: TokenizerSettings, vocabulary: Vocabulary, max_length: int) -> None:
        self._tokenizer = make_tokenizer(tokenizer)
        self._vocabulary = vocabulary
        self._max_length = max_length

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode each text."""
        encoded: list[EncodedText] = []
        for start in range(0, len(texts), BATCH_TEXTS):  # bounds the memory that numbering runs takes
            normalized = [normalize_text(text) for text in texts[start : start + BATCH_TEXTS]]
            grams = hash_normalized(normalized)
            encoded += [
                EncodedText(self._ids(text), runs) for text, runs in zip(normalized, grams, strict=True)
            ]
        return encoded

    def _ids(self, normalized: str) -> list[int]:
        return self._vocabulary.encode(self._tokenizer.cut_normalized(normalized), self._max_length)


class OnnxNetwork:
    """The network in ONNX Runtime on the CPU; may be called from several threads at once."""

    def __init__(self, onnx_bytes: bytes, threads: int = 1) -> None:
        """Build a session; raises ArtifactError when the graph cannot be understood."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # as fast without, and what a large batch took is given back
        # Idle threads must not burn a core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                onnx_bytes, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime raises its own unrelated types
            raise ArtifactError(f"model.onnx: ONNX Runtime cannot load it: {error}") from error
        self._wide = any(entry.name == "grams" for entry in self._session.get_inputs())
        self._classes: int = self._session.get_outputs()[0].shape[1]

    def probabilities(self, texts: Sequence[EncodedText]) -> npt.NDArray[np.float32]:
        """Give class probabilities (n, classes) for n texts of any lengths."""
        if len(texts) == 1:
            return self._run(texts)
        result = np.empty((len(texts), self._classes), np.float32)
        for indices in plan_batches([len(text.token_ids) for text in texts]):
            result[indices] = self._run([texts[index] for index in indices])
        return result

    def _run(self, texts: Sequence[EncodedText]) -> npt.NDArray[np.float32]:
        """Give class probabilities (n, classes) for n texts that make one batch."""
        rows = [text.token_ids for text in texts]
        feed = {"token_ids": pad_rows(rows), "lengths": np.array([len(row) for row in rows], np.int64)}
        if self._wide:  # a network without a wide part does not look at them
            feed["grams"] = pad_rows([text.grams for text in texts])
        probabilities: npt.NDArray[np.float32] = self._session.run(_OUTPUTS, feed)[0]
        return probabilities


def plan_batches(
    lengths: Sequence[int], *, max_texts: int = BATCH_TEXTS, max_tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Group indices so that texts of similar length share a batch and no batch grows too large.

    `lengths` count tokens. A batch holds at most `max_texts`, and `max_tokens` with the padding up to its longest
    text; a text longer than that is a batch of its own. Shortest first.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = len(batch) == max_texts or (len(batch) + 1) * lengths[index] > max_tokens
        if batch and full:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Predictor:
    """One artifact ready to answer; may be called from several threads at once."""

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        """Prepare tokenizer and session; raises ArtifactError when the graph cannot be loaded."""
        self.digest: Final = artifact.digest
        self.labels: Final = artifact.labels
        self._encoder = TextEncoder(artifact.tokenizer, artifact.vocabulary, artifact.max_length)
        self.precision: Final[Precision] = "fp32" if artifact.onnx_int8 is None else "int8"
        self._network = OnnxNetwork(artifact.onnx_int8 or artifact.onnx, threads)

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Do the first half of the work, in which no network takes part: give each text as the network reads it."""
        return self._encoder.encode(texts)

    def probabilities_of(self, encoded: Sequence[EncodedText]) -> npt.NDArray[np.float32]:
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


def check_golden(predictor: Predictor, artifact: Artifact) -> None:
    """Ask for the artifact's golden texts; raises ArtifactError naming the first that gets another answer."""
    answers = predictor.probabilities([case.text for case in artifact.golden])
    tolerance = GOLDEN_TOLERANCE[predictor.precision]
    for case, answer in zip(artifact.golden, answers, strict=True):
        recorded = case.int8 if predictor.precision == "int8" else case.probabilities
        difference = float(np.abs(answer - np.array(recorded, np.float64)).max())
        if not difference <= tolerance:  # so written, a NaN is refused as well
            raise ArtifactError(
                f"golden.json: probabilities of {case.text[:20]!r} are {difference:.4f} away from those "
                f"recorded, allowed {tolerance}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = _parser().parse_args(arguments)
    if bool(options.file) == bool(options.texts):
        print("Give texts, or --file with one text a line: see --help.", file=sys.stderr)
        return 2
    try:
        path = options.artifact.resolve()
        predictor = Predictor(load_artifact(path, options.digest or path.name), options.threads)
        if options.file:
            _predict_file(predictor, options.file, options.out)
        else:
            _print_predictions(predictor, options.texts)
    except (ArtifactError, OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml.predict",
        description="Say whether texts are negative, neutral or positive, with a model from an artifact.",
        epilog="""examples:
  python -m ml.predict --artifact var/store/artifacts/<digest> "这本书很好看" "太差了"
  python -m ml.predict --artifact var/store/artifacts/<digest> --file comments.txt --out labelled.csv

The artifact's folder is named by its digest, and every file in it is checked against that before use.
The CSV has the columns text, label, score and one probability per label; lines stay in order.
exit status: 0 done, 1 the artifact or a file cannot be used, 2 wrong arguments""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to score; each in quotes")
    parser.add_argument("--artifact", type=Path, required=True, metavar="DIR", help="the artifact's folder")
    parser.add_argument("--digest", help="the digest it must have (default: the folder's name)")
    parser.add_argument("--file", type=Path, metavar="TXT", help="a UTF-8 file with one text a line")
    parser.add_argument("--out", type=Path, metavar="CSV", help="where to write (default: standard output)")
    parser.add_argument("--threads", type=int, default=1, help="processor threads to use (default: 1)")
    return parser


def _print_predictions(predictor: Predictor, texts: Sequence[str]) -> None:
    for text, prediction in zip(texts, predictor.predict(texts), strict=True):
        print(f"{prediction.label:<8}  {prediction.score:.3f}  {text}")


def _predict_file(predictor: Predictor, source: Path, target: Path | None) -> None:
    from rich.console import Console
    from rich.progress import track

    texts = source.read_text(encoding="utf-8").splitlines()
    starts = range(0, len(texts), BATCH_TEXTS)
    progress = track(starts, description="predicting", console=Console(stderr=True), disable=not texts)
    output = target.open("w", encoding="utf-8", newline="") if target else contextlib.nullcontext(sys.stdout)
    with output as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "score", *predictor.labels])
        for start in progress:
            batch = texts[start : start + BATCH_TEXTS]
            for text, found in zip(batch, predictor.predict(batch), strict=True):
                numbers = [found.score, *found.probabilities.values()]
                writer.writerow([text, found.label, *(f"{number:.4f}" for number in numbers)])


if __name__ == "__main__":
    raise SystemExit(main())
