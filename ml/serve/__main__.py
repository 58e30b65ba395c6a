"""The command `python -m ml.serve`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml.device import DEVICE_CHOICES, DeviceUnavailable
from ml.serve.settings import ServeSettings, parse_store
from ml.threads import available_cpus

_REMOTE_POLL_SECONDS = 2.0  # a look at a store behind HTTP costs a request


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; gives the exit status."""
    parser = _parser(os.environ)
    options = parser.parse_args(arguments)
    if not options.store:
        parser.error(
            "--store or ARTIFACT_STORE_URL must name the artifact store, like file:///srv/huisheng/store"
        )
    try:
        settings = _settings(options, os.environ)
        workers = available_cpus() if options.workers == "auto" else int(options.workers)
        if workers < 1:
            raise ValueError(f"--workers {workers}: expected at least 1, or auto")
    except ValueError as error:
        parser.error(str(error))
    _log_to_standard_streams()
    if settings.device == "cuda" and not _has_cuda():
        return 1
    # What serves is imported by the process that serves: the one that only starts others needs none of it.
    from ml.serve.workers import serve_alone, serve_with_workers

    if workers == 1:
        serve_alone(settings, options.host, options.port)
        return 0
    return serve_with_workers(settings, options.host, options.port, workers)


def _settings(options: argparse.Namespace, environment: Mapping[str, str]) -> ServeSettings:
    store = parse_store(options.store)
    remote = isinstance(store, str)
    return ServeSettings(
        store=store,
        cache=options.cache,
        token=environment.get("INFERENCE_TOKEN") or None,
        store_token=environment.get("ARTIFACT_STORE_TOKEN") or None,
        protect_metrics=options.protect_metrics,
        access_log=options.access_log,
        poll_seconds=_REMOTE_POLL_SECONDS if remote else ServeSettings.poll_seconds,
        device=options.device,
        max_wait_seconds=options.max_wait_ms / 1000,
        payload_log=options.payload_log,
        payload_rate=options.payload_rate,
    )


def _has_cuda() -> bool:
    """Say at once, and not in every process again and again, that the runtime was built without CUDA."""
    from ml.predict import expect_cuda

    try:
        expect_cuda()
    except DeviceUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def _log_to_standard_streams() -> None:
    """Log to standard error, and accesses, which are lines for machines, to standard output."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    accesses = logging.getLogger("ml.serve.access")
    accesses.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    accesses.addHandler(handler)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml.serve",
        description="Serve the champion over HTTP and follow the pointer when another model is promoted.",
        epilog="""The store is a folder that holds champion.json and artifacts/<digest>/, or an http(s) address of
such a folder: a static file server, a bucket that can be read over HTTP.

  curl -s localhost:8100/readyz
  curl -s localhost:8100/v1/predict -H 'Content-Type: application/json' -d '{"texts": ["这本书很好看"]}'

environment: INFERENCE_TOKEN is the bearer token that requests must carry (health checks need none),
ARTIFACT_STORE_TOKEN the one that is sent to an http(s) store; both unset by default.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    store = environment.get("ARTIFACT_STORE_URL")
    host, port = environment.get("HOST", "127.0.0.1"), environment.get("PORT", "8100")
    defaults = ServeSettings
    add = parser.add_argument
    add("--store", default=store, metavar="URL", help="the artifact store (ARTIFACT_STORE_URL)")
    add("--host", default=host, help="address to listen on (HOST, default: 127.0.0.1)")
    add("--port", type=int, default=port, help="port to listen on (PORT, default: 8100)")
    add("--workers", default="auto", help="processes, one a core: a number, or auto (default)")
    add(
        "--device",
        choices=DEVICE_CHOICES,
        default=environment.get("INFERENCE_DEVICE", defaults.device),
        help="auto takes a CUDA device where ONNX Runtime can use one; every process has a copy of the model on it "
        "(INFERENCE_DEVICE, default: auto)",
    )
    add("--access-log", action="store_true", help="log every request as a line of JSON on standard output")
    add("--cache", type=Path, metavar="DIR", help="where artifacts of an http(s) store are kept")
    add("--protect-metrics", action="store_true", help="ask for the token at /metrics as well")
    add(
        "--max-wait-ms",
        type=float,
        default=defaults.max_wait_seconds * 1000,
        help="refuse requests that would wait longer than this, as estimated (default: %(default)g)",
    )
    add("--payload-log", type=Path, metavar="FILE", help="write a masked sample of texts and labels here")
    add(
        "--payload-rate",
        type=float,
        default=defaults.payload_rate,
        help="part of the requests that is sampled (default: %(default)g)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
