"""The command `python -m ml.bench` (`make bench-inference`)."""

from __future__ import annotations

import argparse
import json
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import onnxruntime
import psutil
from rich.console import Console

from ml.artifact import ArtifactError, load_artifact
from ml.bench.measurements import (
    CLIENT_BOUND_SHARE,
    FULL,
    NOOP,
    QUICK,
    Bench,
    Plan,
    measure_overload,
    measure_round,
    measure_short,
    measure_starts,
    measure_swaps,
    noticing_others,
    soak,
    summarize_rounds,
)
from ml.bench.models import (
    FIRST_MODEL,
    copy_to_store,
    keep_models,
    models_of_store,
)
from ml.bench.processes import ROOT, BenchError, Cores, choose_cores, serving
from ml.serve.settings import parse_store
from ml.serve.store import PointerError

CACHE: Final = ROOT / "var" / "bench-inference"
_EPILOG = """\
The service and its clients run on a core each, the service with one worker. One line of JSON comes last:
  single                p50 and p99 of one client that asks about one text at a time; requests a second of 1 and 32
  batch64_texts_per_s   texts a second when requests hold 64
  in_process            the same core, tokenizing and running the network in a loop without a server
  noop_rps              the same HTTP server answering a constant to the same requests
  ratio_single          32 clients against the lesser of noop and in-process; ratio_batch: over HTTP against in-process
  overload              three times the capacity offered, several times, each compared with the capacity before and
                        after it; goodput: answered within 3 x the p99 at capacity
  swaps                 two models changing places under load: failed and mixed answers, memory before and after
  others_cpu_cores      what else kept the machine busy meanwhile; figures of a run with much of it say little
Times are of this machine; ratios can be compared with another's.

  make bench-inference QUICK=1
  make bench-inference ARGS="--store file:///srv/huisheng/store --skip-swaps"
  make bench-inference ARGS="--soak 1000000"

exit status: 0 measured, 1 cannot be measured or an answer was wrong, 2 wrong arguments, 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        return _run(options, console)
    except (BenchError, ArtifactError, PointerError, OSError) as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: all that was started has been stopped")
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(options: argparse.Namespace, console: Console) -> int:
    cores = choose_cores()
    plan: Plan = QUICK if options.quick else FULL
    with console.status("") as status, tempfile.TemporaryDirectory(prefix="huisheng-bench-") as folder:

        def report(what: str) -> None:
            if console.is_terminal:
                status.update(what)
            else:
                console.print(what, markup=False, highlight=False, soft_wrap=True)

        models = models_of_store(options.store) if options.store else keep_models(CACHE, FIRST_MODEL, report)
        store = copy_to_store(models, Path(folder) / "store")
        bench = Bench(cores, models, store, plan, report)
        figures = measure(bench, skip_swaps=options.skip_swaps, soak_requests=options.soak)
    print(json.dumps(figures))
    if bench.wrong:
        console.print(f"error: {bench.wrong} of {bench.checked} answers looked at were wrong")
    return 1 if bench.wrong else 0


def measure(bench: Bench, *, skip_swaps: bool, soak_requests: int) -> dict[str, Any]:
    """Measure everything, and give what the last line prints."""
    with noticing_others() as others_cpu_cores:
        figures = _measure_all(bench, skip_swaps=skip_swaps, soak_requests=soak_requests)
    return {
        **figures,
        "client_cpu_share": bench.client_cpu_share,
        "client_bound": is_client_bound(bench.client_cpu_share, figures),
        "answers_checked": bench.checked,
        "answers_wrong": bench.wrong,
        "requests_not_answered": bench.not_answered,
        "texts": {
            "count": len(bench.reviews),
            "median_characters": statistics.median(map(len, bench.reviews)),
        },
        "model": describe_model(bench),
        "machine": describe_machine(bench.cores),
        "others_cpu_cores": round(others_cpu_cores[0], 2),
    }


def is_client_bound(shares: Mapping[str, float], figures: Mapping[str, Any]) -> bool:
    """Say whether the client, rather than the server, decided a figure that matters.

    Constant answers come so fast that they may take all of the client's core; what it then says is at least true, and
    of no weight while computing is the narrower limit.
    """
    wide = figures["noop_rps"] > figures["in_process"]["single_rps"]
    return any(share > CLIENT_BOUND_SHARE for name, share in shares.items() if name != "noop" or not wide)


def _measure_all(bench: Bench, *, skip_swaps: bool, soak_requests: int) -> dict[str, Any]:
    bench.prepare()
    bench.report("starting the service, several times")
    cold_start_s = measure_starts(bench)
    rounds = []
    with serving(bench.cores.server, NOOP) as noop, bench.serve() as service:
        for number in range(1, bench.plan.rounds + 1):
            bench.report(
                f"round {number} of {bench.plan.rounds}: in process, constant answers, one text, 64 texts"
            )
            rounds.append(measure_round(bench, service, noop))
        bench.report("short texts")
        short = measure_short(bench, service)
        bench.report("overload")
        overload = measure_overload(bench, service)
        rss_mb = service.rss_mb()
        soaked = None
        if soak_requests:
            bench.report(f"soak: {soak_requests} requests")
            soaked = soak(bench, service, soak_requests)
    swaps = None
    if not skip_swaps:
        bench.report(f"{bench.plan.swaps} swaps under load")
        swaps = measure_swaps(bench)
    figures = summarize_rounds(rounds)
    return {
        **figures,
        "overload": overload,
        "cold_start_s": round(cold_start_s, 3),
        "rss_mb": round(rss_mb, 1),
        "short": short,
        "swaps": {name: round(value, 3) for name, value in asdict(swaps).items()} if swaps else None,
        "soak": soaked,
    }


def describe_model(bench: Bench) -> dict[str, Any]:
    """Give what must be known of the model to read the figures."""
    artifact = load_artifact(bench.artifact, bench.artifact.name)
    network = artifact.network
    return {
        "digest": artifact.digest,
        "precision": "fp32" if artifact.onnx_int8 is None else "int8",
        "vocabulary": network.vocabulary_size,
        "embedding_dim": network.embedding_dim,
        "hidden_dim": network.hidden_dim,
        "max_length": artifact.max_length,
    }


def describe_machine(cores: Cores) -> dict[str, Any]:
    """Give what must be known of the machine to read the figures."""
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(),
        "server_core": cores.server,
        "client_core": cores.client,
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml.bench",
        description="Measure how near the inference service comes to what its core can do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, in under a minute: a trial")
    parser.add_argument(
        "--store",
        type=_existing_store,
        metavar="URL",
        help="measure this store's champion (and swap it with the one before it), like file:///srv/store; it is "
        "copied, its pointer stays. Default: a model of the size of a first training, made once under var/",
    )
    parser.add_argument("--skip-swaps", action="store_true", help="leave out the swaps")
    parser.add_argument(
        "--soak",
        type=_count,
        default=0,
        metavar="N",
        help="also send N requests and tell the memory along the way",
    )
    return parser


def _existing_store(url: str) -> Path:
    try:
        path = parse_store(url)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if isinstance(path, str):
        raise argparse.ArgumentTypeError(
            f"{url}: what is fetched over HTTP would be measured; copy the store here"
        )
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no folder: no store is there")
    return path


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of requests")
    return int(text)


if __name__ == "__main__":
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    sys.exit(main())
