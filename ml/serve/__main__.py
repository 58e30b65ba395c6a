"""The command `python -m ml.serve`."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence

import uvicorn

from ml.serve.app import create_app
from ml.serve.settings import ServeSettings, store_path


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop; on SIGTERM the requests under way are answered first."""
    parser = _parser(os.environ)
    options = parser.parse_args(arguments)
    if not options.store:
        parser.error(
            "--store or ARTIFACT_STORE_URL must name the artifact store, like file:///srv/huisheng/store"
        )
    try:
        store = store_path(options.store)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(ServeSettings(store=store, workers=options.workers))
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=options.access_log,
        timeout_keep_alive=30,  # longer than clients keep idle connections
        timeout_graceful_shutdown=20,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml.serve",
        description="Serve the champion over HTTP and follow the pointer when another model is promoted.",
        epilog="""The store is a folder that holds champion.json and artifacts/<digest>/.

  curl -s localhost:8100/readyz
  curl -s localhost:8100/v1/predict -H 'Content-Type: application/json' -d '{"texts": ["这本书很好看"]}'""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    store = environment.get("ARTIFACT_STORE_URL")
    host, port = environment.get("HOST", "127.0.0.1"), int(environment.get("PORT", "8100"))
    parser.add_argument(
        "--store", default=store, metavar="URL", help="the artifact store (ARTIFACT_STORE_URL)"
    )
    parser.add_argument("--host", default=host, help="address to listen on (HOST, default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (PORT, default: 8100)")
    parser.add_argument("--workers", type=int, default=2, help="requests computed at once (default: 2)")
    parser.add_argument("--access-log", action="store_true", help="log every request")
    return parser


if __name__ == "__main__":
    main()
