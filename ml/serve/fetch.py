"""The command `python -m ml.serve.fetch`: waits for a champion and brings it here before the service starts."""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ml.artifact import ArtifactError
from ml.serve.remote_store import RemoteStore
from ml.serve.settings import parse_store
from ml.serve.store import PointerError

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 2.0
_SAY_AGAIN_SECONDS = 60.0  # what is waited for, also while that stays the same


class NoChampion(Exception):
    """No champion came in time; says why."""


def fetch_champion(
    store: RemoteStore, *, seconds: float = math.inf, look_every_seconds: float = _LOOK_EVERY_SECONDS
) -> str:
    """Fetch what the pointer names into the store's cache, verified by its digest, and give that digest.

    Whatever is amiss is tried again: there may be no champion yet, or a damaged one may be replaced. Raises NoChampion
    after `seconds`.
    """
    deadline = time.monotonic() + seconds
    said, said_at = "", -math.inf
    while True:
        try:
            store.mark()
            return store.load(store.read_pointer().digest).digest
        except (PointerError, ArtifactError) as error:
            reason = str(error)
        now = time.monotonic()
        if now >= deadline:
            raise NoChampion(reason)
        if reason != said or now - said_at >= _SAY_AGAIN_SECONDS:
            log.info("waiting for a champion: %s", reason)
            said, said_at = reason, now
        time.sleep(min(look_every_seconds, deadline - now))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and end; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ml.serve.fetch",
        description="Wait for a champion in an artifact store behind HTTP, fetch it and verify it by its digest.",
        epilog="environment: ARTIFACT_STORE_URL, and ARTIFACT_STORE_TOKEN, the bearer token that is sent to it",
    )
    parser.add_argument("--store", default=os.environ.get("ARTIFACT_STORE_URL", ""), metavar="URL")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="as the service's --cache")
    parser.add_argument(
        "--timeout", type=float, default=math.inf, metavar="SECONDS", help="to wait (default: for ever)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every look
    try:
        address = parse_store(options.store)
    except ValueError as error:
        parser.error(str(error))
    if isinstance(address, Path):
        parser.error(f"--store {options.store}: a folder is read in place; http(s) is wanted")
    store = RemoteStore(address, options.cache, os.environ.get("ARTIFACT_STORE_TOKEN") or None)
    try:
        digest = fetch_champion(store, seconds=options.timeout)
    except NoChampion as error:
        log.error("after %g s there is no champion: %s", options.timeout, error)
        return 1
    finally:
        store.close()
    log.info("model %s is here and verified", digest)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
