"""The command `python -m ml.predict`: predictions without a server."""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO, Final

from ml.artifact import Artifact, ArtifactError, load_artifact
from ml.device import DEVICE_CHOICES, DeviceUnavailable
from ml.predict import Predictor, open_predictor

INTERRUPTED: Final = 130  # the exit status of what Ctrl-C ended, as shells have it
TERMINATED: Final = 143
_CHUNK_TEXTS: Final = 1024  # read at once, so that texts of similar length can share batches
_USUAL_STORE: Final = Path(__file__).resolve().parents[1] / "var" / "store"

Advance = Callable[[int], None]  # takes how many bytes more have been read


class CannotPredict(Exception):
    """There is no model to ask, or a file cannot be used; says which and what to do."""


def run() -> int:
    """Run the command in a process of its own, which may be told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # by an exception, which cleans up
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = _parser(os.environ).parse_args(arguments)
    if bool(options.file) == bool(options.texts):
        print("Give texts, or --file with one text a line: see --help.", file=sys.stderr)
        return 2
    try:
        predictor = open_predictor(_open_artifact(options), options.threads, options.device)
        if options.file:
            _predict_file(predictor, options.file, options.out)
        else:
            _print_predictions(predictor, options.texts)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (
        BrokenPipeError
    ):  # whoever read the output has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ArtifactError, CannotPredict, DeviceUnavailable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml.predict",
        description="Say whether texts are negative, neutral or positive, without a server.",
        epilog="""examples:
  python -m ml.predict "这本书很好看" "太差了"
  python -m ml.predict --file comments.txt --out labelled.csv
  cat comments.txt | python -m ml.predict --file -
  python -m ml.predict --artifact var/store/artifacts/<digest> "这本书很好看"

Without --artifact the champion answers: the model that the store says is served.
An artifact's folder is named by its digest, and every file in it is checked against that before use.
The CSV has the columns text, label, score and one probability per label; lines stay in order. It is written
whole or not at all.
exit status: 0 done, 1 the model or a file cannot be used, 2 wrong arguments, 130 interrupted""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    store = environment.get("ARTIFACT_STORE_URL") or _USUAL_STORE.as_uri()
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to score; each in quotes")
    parser.add_argument(
        "--artifact", type=Path, metavar="DIR", help="an artifact's folder (default: the champion)"
    )
    parser.add_argument("--digest", help="the digest that folder must have (default: its name)")
    parser.add_argument(
        "--store",
        default=store,
        metavar="URL",
        help="where the champion is looked up (ARTIFACT_STORE_URL, default: var/store of this project)",
    )
    parser.add_argument(
        "--file", metavar="TXT", help="a UTF-8 file with one text a line; - for standard input"
    )
    parser.add_argument("--out", type=Path, metavar="CSV", help="where to write (default: standard output)")
    parser.add_argument(
        "--device",
        choices=DEVICE_CHOICES,
        default="auto",
        help="auto takes a CUDA device where ONNX Runtime can use one (default: auto)",
    )
    parser.add_argument("--threads", type=int, default=1, help="processor threads to use (default: 1)")
    return parser


def _open_artifact(options: argparse.Namespace) -> Artifact:
    if options.artifact is None:
        return _open_champion(options.store)
    path = options.artifact.resolve()
    return load_artifact(path, options.digest or path.name)


def _open_champion(store_url: str) -> Artifact:
    from ml.serve.settings import ServeSettings, parse_store
    from ml.serve.store import PointerError, open_store

    try:
        token = os.environ.get("ARTIFACT_STORE_TOKEN") or None
        store = open_store(ServeSettings(parse_store(store_url), store_token=token))
        return store.load(store.read_pointer().digest)
    except (ValueError, PointerError) as error:
        raise CannotPredict(
            f"no champion to ask: {error}. `make demo` trains and promotes one into var/store; "
            "or name a store by --store or ARTIFACT_STORE_URL, or a model's folder by --artifact"
        ) from error


def _print_predictions(predictor: Predictor, texts: Sequence[str]) -> None:
    for text, prediction in zip(texts, predictor.predict(texts), strict=True):
        shown = text.encode(errors="backslashreplace").decode()  # an argument may hold bytes that are no text
        print(f"{prediction.label:<8}  {prediction.score:.3f}  {shown}")


def _predict_file(predictor: Predictor, source: str, target: Path | None) -> None:
    with _open_source(source) as lines, _open_target(target) as output, _show_progress(lines) as advance:
        writer = csv.writer(output)
        writer.writerow(["text", "label", "score", *predictor.labels])
        texts = _read_texts(lines, source, advance)
        while chunk := list(itertools.islice(texts, _CHUNK_TEXTS)):
            for text, found in zip(chunk, predictor.predict(chunk), strict=True):
                numbers = [found.score, *found.probabilities.values()]
                writer.writerow([text, found.label, *(f"{number:.4f}" for number in numbers)])


def _open_source(source: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb")


def _read_texts(lines: BinaryIO, source: str, advance: Advance) -> Iterator[str]:
    """Give line after line without its end; raises CannotPredict naming the line that is not UTF-8."""
    for number, line in enumerate(lines, start=1):
        advance(len(line))
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            name = "standard input" if source == "-" else source
            raise CannotPredict(
                f"{name}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
            ) from error
        yield text.removesuffix("\n").removesuffix("\r")


@contextlib.contextmanager
def _open_target(target: Path | None) -> Iterator[IO[str]]:
    """Open a file that appears whole when the block ends well, and not at all otherwise."""
    if target is None:
        yield sys.stdout
        return
    if target.exists() and not target.is_file():  # a pipe or a device cannot be replaced
        with target.open("w", encoding="utf-8", newline="") as output:
            yield output
        return
    final = target.resolve()  # what a link points to, not the link
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        os.chmod(name, final.stat().st_mode & 0o777 if final.exists() else 0o644)
        os.replace(name, final)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _show_progress(lines: BinaryIO) -> Iterator[Advance]:
    """Show how much of the file has been read, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    found = os.fstat(lines.fileno())
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("predicting", total=found.st_size or None)
        yield lambda size_bytes: progress.update(task, advance=size_bytes)
