"""A trainer: one site's process. It reads its own shard and nothing else, and sends gradients, never texts.

    python -m federated.trainer --aggregator http://127.0.0.1:9000 --site food --shard FILE --validation FILE

The site's bearer token comes in the environment (HUISHENG_SITE_TOKEN). With an https:// address the aggregator's
certificate must be one for its host, signed by the CA in --ca FILE or by one that the system trusts.

Exit status: 0 the run is done, 2 wrong usage, a bad shard or certificate file, 10 the aggregator refused this site for
good or is not to be trusted, 11 the aggregator could not be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import itertools
import json
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from federated.encoding import Encoder
from federated.protocol import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    MESSAGE_TYPE,
    NOT_COUNTED_HEADER,
    REASON_MAX_CHARS,
    TOKEN_VARIABLE,
    Message,
    MessageError,
    Metrics,
    Tensors,
    decode_message,
    encode_pieces,
    site_seed,
    size_of,
)
from federated.rows import apply_changes
from federated.strategies import STRATEGIES, LocalTraining, network_tensors
from federated.tls import TlsError, explain_failure, make_client_context
from ml.data import Dataset, Example, InvalidShard, collate, encode_dataset, length_batches, read_examples
from ml.model import SentimentLSTM, build_model
from ml.model_config import ModelConfig
from ml.threads import threads_of_process
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.train import choose_device, evaluate
from ml.vocabulary import Vocabulary, count_tokens

PATIENCE_SECONDS = 36.0  # with an aggregator that may still be starting, or starting again
CONNECT_SECONDS, HELD_SECONDS = 10, 600
# An aggregator whose machine is gone says nothing, not even that: asked when a held answer is long in coming.
SILENT_SECONDS, ASK_SECONDS, ASK_TIMES = 30, 10, 3

log = logging.getLogger("federated.trainer")


class AggregatorError(Exception):
    """The aggregator refused (permanent) or could not be reached."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class RoundNotBegun(AggregatorError):
    """The aggregator has lost rounds that this site was told of, as after a power cut: join again."""


class AggregatorClient:
    """The trainer's only way out: one connection, kept for the whole run."""

    def __init__(
        self,
        url: str,
        token: str,
        tls: ssl.SSLContext | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`tls` says whom an https:// address must belong to; None trusts what the system trusts.

        `patience_seconds` is how long the aggregator may be away; its name is looked up anew each time.
        """
        self._patience_seconds = patience_seconds
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_SECONDS, context=tls or make_client_context()
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        self._buffer = bytearray()  # what is answered; good until the next request
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": MESSAGE_TYPE}

    def close(self) -> None:
        """Close the connection to the aggregator."""
        self._connection.close()

    def settings(self) -> dict[str, Any]:
        """What to know before joining: the tokenizer settings, and how large this site's batches are."""
        content = self._send("GET", "/v1/settings", [])
        try:
            return dict(json.loads(bytes(content)))
        except (ValueError, TypeError) as error:
            raise MessageError(f"/v1/settings is not a JSON object: {bytes(content[:200])!r}") from error

    def join(self, counts: Mapping[str, Any]) -> tuple[dict[str, Any], Tensors]:
        return decode_message(self._send("POST", "/v1/join", encode_pieces(counts, {})))

    def exchange(
        self, round_number: int, header: Mapping[str, Any], gradients: Tensors
    ) -> tuple[dict[str, Any], Tensors]:
        """Upload a round's update, wait until the round is closed, and return the next round's parameters."""
        pieces = encode_pieces(header, gradients)
        return decode_message(self._send("POST", f"/v1/rounds/{round_number}/update", pieces))

    def _send(self, method: str, path: str, pieces: Message) -> memoryview:
        """Send until it is answered. Sending again is safe: an update counts once per site and round."""
        began = time.monotonic()
        for attempt in itertools.count(1):
            try:
                status, content = self._ask(method, path, pieces)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if why := explain_failure(error, self._connection.host):
                    raise AggregatorError(why, permanent=True) from error
                problem = f"{type(error).__name__}: {error}"
            else:
                if status == 200:
                    return content
                reason = str(content[: 4 * REASON_MAX_CHARS], "utf-8", "replace")
                said = f"{path} answered {status}: {reason}"
                if status == 409:
                    raise RoundNotBegun(said, permanent=True)
                if status < 500 and status != 408:
                    raise AggregatorError(said, permanent=True)
                problem = said
            away = time.monotonic() - began
            if away >= self._patience_seconds:
                raise AggregatorError(
                    f"no answer from the aggregator at {path} in {away:.0f} s ({problem}); "
                    f"--patience-seconds is {self._patience_seconds:.0f}",
                    permanent=False,
                )
            log.warning(
                "attempt %d at %s failed (%s); trying for %.0f s more",
                attempt,
                path,
                problem,
                self._patience_seconds - away,
            )
            time.sleep(min(1.0, 0.1 * attempt))
        raise AssertionError("counting never ends")

    def _ask(self, method: str, path: str, pieces: Message) -> tuple[int, memoryview]:
        if not self._connection.sock:
            self._connection.connect()
            # The held answer of a round comes when the slowest site has answered, so reading may take long.
            opened = _socket_of(self._connection)
            opened.settimeout(HELD_SECONDS)
            notice_silence(opened)
        announced = str(size_of(pieces))
        self._connection.request(method, path, pieces, {**self._headers, "Content-Length": announced})
        response = self._connection.getresponse()
        size = int(response.headers.get("Content-Length", 0))
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        content, read = memoryview(self._buffer)[:size], 0
        while read < len(content):
            count = response.readinto(content[read:])
            if not count:
                raise ConnectionError("the aggregator left amid an answer")
            read += count
        response.read()  # the end, so that the connection can be used again
        if why := response.headers.get(NOT_COUNTED_HEADER):
            log.warning("%s: %s", path, why)
        return response.status, content


def _socket_of(connection: http.client.HTTPConnection) -> socket.socket:
    return connection.sock


def notice_silence(opened: socket.socket) -> None:
    """Let the system ask a peer that says nothing whether it is still there, where it can."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENT_SECONDS),
        ("TCP_KEEPINTVL", ASK_SECONDS),
        ("TCP_KEEPCNT", ASK_TIMES),
    ):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@dataclass(frozen=True)
class SiteData:
    site: str
    train: list[Example]
    validation: list[Example]


class RoundBatches:
    """The batches of a site: those of a round are the same whenever they are asked for, and whoever asks."""

    def __init__(self, make: Callable[[], Iterator[np.ndarray]], steps: int) -> None:
        """`make` begins the endless row of batches anew; a round takes `steps` of them."""
        self._make, self._steps = make, steps
        self._batches, self._taken = make(), 0

    def of_round(self, number: int) -> list[np.ndarray]:
        """Give the indices of the samples of a round's batches, rounds being counted from 1."""
        if number <= self._taken:
            self._batches, self._taken = self._make(), 0
        skipped = (number - 1 - self._taken) * self._steps
        self._taken = number
        return list(itertools.islice(self._batches, skipped, skipped + self._steps))


def take_part(client: AggregatorClient, data: SiteData, device: torch.device) -> int:
    """Take part in a run until it is done; returns the number of rounds this site answered."""
    orders = client.settings()
    tokenizer = make_tokenizer(TokenizerSettings.from_json(orders["tokenizer"]))
    token_counts = count_tokens((example.text for example in data.train), tokenizer)
    about_us = {
        "samples": len(data.train),
        "validation_samples": len(data.validation),
        "token_counts": token_counts,
    }
    plan, tensors = client.join(about_us)
    vocabulary = Vocabulary(plan["vocabulary"])
    train = encode_dataset(data.train, tokenizer, vocabulary, plan["max_length"])
    validation = encode_dataset(data.validation, tokenizer, vocabulary, plan["max_length"])
    held = {name: torch.from_numpy(value).to(device, copy=True) for name, value in tensors.items()}
    model = build_model(
        ModelConfig.from_json(plan["model"]), network_tensors(held), words=vocabulary.tokens, copy=False
    )
    site = STRATEGIES[plan["strategy"]].site()
    encoder = Encoder(plan["encoding"])
    seed = site_seed(plan["seed"], data.site)
    batches = RoundBatches(
        functools.partial(
            length_batches, train.lengths, orders["batch_size"], seed=seed, order_seed=plan["seed"]
        ),
        plan["local_steps"],
    )
    header, answered = plan, 0
    while not header["done"]:
        round_number = int(header["round"])
        torch.manual_seed(seed + round_number)
        update: dict[str, Any] = {"site": data.site}
        if header["validate"] and len(validation):
            update["validation"] = asdict(measure(model, validation))
        result = site.compute(
            model.train(),
            held,
            [collate(train, rows) for rows in batches.of_round(round_number)],
            LocalTraining(header["local_rate"], plan["label_smoothing"]),
        )
        update["batch"] = asdict(Metrics(result.samples, result.loss_sum, result.correct))
        try:
            header, tensors = client.exchange(round_number, update, encoder.encode(result.sums))
        except RoundNotBegun as error:
            log.warning("%s; joining again", error)
            header, tensors = client.join(about_us)
        else:
            answered += 1
        apply_changes(held, tensors)
    return answered


def measure(model: SentimentLSTM, dataset: Dataset) -> Metrics:
    evaluation = evaluate(model, dataset)
    correct = sum(evaluation.confusion[index][index] for index in range(len(evaluation.confusion)))
    return Metrics(evaluation.samples, evaluation.loss * evaluation.samples, correct)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m federated.trainer", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--aggregator", required=True, help="address of the run's aggregator, e.g. http://127.0.0.1:9000"
    )
    parser.add_argument("--site", required=True, help="this site's name, as the aggregator knows it")
    parser.add_argument(
        "--shard", required=True, type=Path, help="JSONL file of this site's training samples"
    )
    parser.add_argument(
        "--validation", required=True, type=Path, help="JSONL file of this site's validation samples"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute; auto takes CUDA where there is one (default)",
    )
    parser.add_argument(
        "--ca", type=Path, help="trust only an aggregator with a certificate of this CA (PEM)"
    )
    parser.add_argument(
        "--tls-cert", type=Path, help="this site's own certificate (PEM), where one is wanted"
    )
    parser.add_argument("--tls-key", type=Path, help="its key (PEM, without a passphrase)")
    parser.add_argument(
        "--patience-seconds",
        type=float,
        default=PATIENCE_SECONDS,
        help="how long the aggregator may be away, or not there yet (default: %(default).0f)",
    )
    options = parser.parse_args(arguments)
    secure = urlsplit(options.aggregator).scheme == "https"
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key go together")
    if not secure and (options.ca or options.tls_cert):
        parser.error("--ca and --tls-cert want an --aggregator with https://")
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s trainer[{options.site}] %(message)s"
    )
    try:
        device = choose_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(threads_of_process())
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        log.error("%s is not in the environment: set it to this site's token", TOKEN_VARIABLE)
        return EXIT_USAGE
    try:
        data = SiteData(options.site, read_examples(options.shard), read_examples(options.validation))
        if not data.train:
            raise InvalidShard(f"{options.shard.name}: holds no sample; cut the shard again")
        log.info("%d training and %d validation samples", len(data.train), len(data.validation))
        tls = make_client_context(options.ca, options.tls_cert, options.tls_key) if secure else None
        with contextlib.closing(
            AggregatorClient(options.aggregator, token, tls, options.patience_seconds)
        ) as client:
            answered = take_part(client, data, device)
    except TlsError as error:
        log.error("%s", error)
        return EXIT_USAGE
    except (InvalidShard, OSError) as error:
        log.error("the shard cannot be used: %s", error)
        return EXIT_USAGE
    except MessageError as error:
        log.error("the aggregator sent something else than a message: %s", error)
        return EXIT_REFUSED
    except AggregatorError as error:
        log.error("%s", error)
        return EXIT_REFUSED if error.permanent else EXIT_UNREACHABLE
    log.info("the run is done; this site answered %d rounds", answered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
