"""Fetch one file from a pre-signed address, and verify it: how a trainer's pod gets its shard. No torch.

    FETCH_URL=http://store/shards/….jsonl?expires=…&signature=… python -m federated.fetch --digest SHA256 --to FILE

The address comes in the environment, since it is a secret for as long as it is good. What is there already, whole, is
not fetched again.

Exit status: 0 the file is there, 1 it cannot be written here, 2 wrong usage, 10 the address was refused or leads to
something else, 11 the store could not be reached.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from federated.http_store import fetch_file, shown_address
from federated.protocol import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE
from federated.store import StoreError, checked_digest

ADDRESS_VARIABLE = "FETCH_URL"
PATIENCE_SECONDS = 120.0

log = logging.getLogger("federated.fetch")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m federated.fetch", description=__doc__.split("\n")[0])
    parser.add_argument("--digest", required=True, help="the sha256 that the file must have")
    parser.add_argument("--to", required=True, type=Path, metavar="FILE", help="where to put it")
    parser.add_argument(
        "--patience-seconds",
        type=float,
        default=PATIENCE_SECONDS,
        help="how long the store may be away (default: %(default).0f)",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s fetch %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write whole addresses
    url = os.environ.get(ADDRESS_VARIABLE, "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        log.error("%s must be the http(s) address of the file to fetch", ADDRESS_VARIABLE)
        return EXIT_USAGE
    try:
        checked_digest(options.digest)
    except StoreError as error:
        log.error("--digest %s", error)
        return EXIT_USAGE
    try:
        fetch_file(url, options.to, options.digest, options.patience_seconds)
    except StoreError as error:
        log.error("%s", error)
        return EXIT_REFUSED if error.permanent else EXIT_UNREACHABLE
    except OSError as error:
        log.error("%s cannot be written: %s", options.to, error)
        return 1
    log.info(
        "%s: %d bytes from %s, sha256 %s",
        options.to,
        options.to.stat().st_size,
        shown_address(url),
        options.digest,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
