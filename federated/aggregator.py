"""The aggregator of one run: hands parameters down, takes gradients up, averages, steps, round after round.

    python -m federated.aggregator --spec run.json --work-dir DIR (--fd N | --host H --port P)

Routes (all but /livez want the site's bearer token): GET /v1/settings · POST /v1/join · POST /v1/rounds/N/update.
Join and update are held requests: the answer to an update is the next round's parameters, so a round is one exchange
per site and nobody polls. What happens is written to progress.jsonl in the work folder.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response

from federated.averaging import GradientSum, InconsistentUpdates
from federated.journal import Journal, JournalError, mend_last_line
from federated.protocol import (
    NO_METRICS,
    TOKENS_VARIABLE,
    MessageError,
    ProgressLog,
    RoundRecord,
    RunSpec,
    Tensors,
    Update,
    batch_share,
    decode_message,
    encode_message,
    read_metrics,
)
from federated.report import conclude_run
from federated.rows import pack_rows, unpack_rows
from federated.store import FolderStore, StoreError, open_store
from ml.artifact import Artifact, ArtifactError, load_artifact
from ml.model import extend_vocabulary, initial_parameters
from ml.model_config import ModelConfig
from ml.tokenizer import TokenizerSettings
from ml.train import ServerOptimizer, make_server_optimizer
from ml.training_config import FIRST_TRAINING, RETRAINING, TrainingConfig
from ml.vocabulary import Vocabulary, build_vocabulary

VOCABULARY_MAX_SIZE = 12_000
VOCABULARY_MIN_COUNT = 2
VALIDATE_EVERY_ROUNDS = 30
CHECKPOINT_EVERY_ROUNDS = 25  # in between, the journal holds each round's gradient
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MESSAGE_TYPE = "application/vnd.huisheng.safetensors"

log = logging.getLogger("federated.aggregator")


class RunFailed(Exception):
    """The run cannot go on; the text is what its page will say."""


class Aggregator:
    """One run's state. Everything happens on the event loop; only the conclusion is computed in a thread."""

    def __init__(
        self,
        spec: RunSpec,
        store: FolderStore,
        progress: ProgressLog,
        journal: Journal,
        *,
        min_sites: int | None = None,
    ) -> None:
        self.spec = spec
        self._journal = journal
        self._store = store
        self._progress = progress
        # More than half of the sites: a run must not become one site's model because the others died.
        self._min_sites = min_sites if min_sites is not None else len(spec.sites) // 2 + 1
        self._champion = self._load_champion()
        self._changed = asyncio.Condition()
        self._joined: dict[str, Counter[str]] = {}  # site → its token counts
        self._missing: set[str] = set()
        self._round = 0  # 0 until the sites have joined
        self._answers: dict[str, Update] = {}  # what the sites said this round, without their gradients
        self._bytes_up = self._bytes_down = 0
        self._plan: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the parameters, once they are known
        self._broadcast = b""  # the present round's parameters, one buffer for all sites
        self._failure: str | None = None
        self._vocabulary: Vocabulary
        self.records: list[RoundRecord] = []
        self._pause = ""  # what the run waits for, while too few sites answer
        self.config: TrainingConfig = FIRST_TRAINING if spec.champion_digest is None else RETRAINING
        if spec.rounds is not None:
            self.config = self.config.with_rounds(spec.rounds)

    def _load_champion(self) -> Artifact | None:
        if self.spec.champion_digest is None:
            return None
        return load_artifact(self._store.artifact(self.spec.champion_digest), self.spec.champion_digest)

    def tokenizer(self) -> TokenizerSettings:
        return TokenizerSettings() if self._champion is None else self._champion.tokenizer

    # -- What sites ask ------------------------------------------------------------------------------------------

    async def join(self, site: str, token_counts: Mapping[str, int]) -> bytes:
        """Hold the site until training begins; a site that joins later starts in the present round."""
        async with self._changed:
            self._joined[site] = Counter(token_counts)
            self._take_back(site)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._round > 0 or self._failure is not None)
            self._raise_failure()
            _, parameters = decode_message(self._broadcast)
            everyone = sum(other.samples for other in self.spec.sites.values())
            batch_size = batch_share(self.config.global_batch_size, self.spec.sites[site].samples, everyone)
            return self._send(
                encode_message({**self._plan, **self._header(), "batch_size": batch_size}, parameters)
            )

    async def exchange(self, update: Update, size_bytes: int) -> bytes:
        """Take an update, hold the site until the round closes, and return the next round's parameters.

        An update of an earlier round is not counted: its site gets the present parameters and goes on from there.
        """
        async with self._changed:
            self._raise_failure()
            if self._round == 0 or update.round > min(self._round, self.config.rounds):
                raise HTTPException(
                    409,
                    f"round {update.round} of {self.config.rounds} has not begun; the present one is {self._round}",
                )
            if update.round == self._round:
                # Checked before the site counts as present: one that sends nonsense must not hold up every round.
                self._check_claims(update)
                self._add_once(update)
            self._take_back(update.site)
            if update.round == self._round:
                self._bytes_up += size_bytes
                self._changed.notify_all()
                await self._changed.wait_for(lambda: self._round > update.round or self._failure is not None)
                self._raise_failure()
            return self._send(self._broadcast)

    def _add_once(self, update: Update) -> None:
        """Add the update to the round's sum; of one that is sent again only the first counts."""
        if update.site in self._answers:
            return
        self._sum.add(update)
        self._answers[update.site] = replace(update, gradients={})  # the sum holds them

    def unpack(self, tensors: Tensors) -> Tensors:
        """Put the rows that a site sent into whole matrices; raises MessageError."""
        return unpack_rows(tensors, self._shapes)

    def _check_claims(self, update: Update) -> None:
        """Refuse more samples than the site has: sample counts are the weights of the average."""
        site = self.spec.sites[update.site]
        validated = 0 if update.validation is None else update.validation.samples
        if update.batch.samples > site.samples or validated > site.validation_samples:
            raise InconsistentUpdates(
                f"site {update.site}: claims {update.batch.samples} samples and {validated} for validation, "
                f"its shards hold {site.samples} and {site.validation_samples}"
            )

    def _send(self, message: bytes) -> bytes:
        self._bytes_down += len(message)
        return message

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise HTTPException(410, self._failure)

    # -- The run -------------------------------------------------------------------------------------------------

    async def lead(self) -> None:
        """Lead the run from the first join to its report. Raises RunFailed."""
        try:
            async with asyncio.timeout(self.spec.deadline_seconds):
                if self._journal.exists():
                    await self._resume()
                else:
                    await self._begin()
                while self._round <= self.config.rounds:
                    await self._lead_round()
        except TimeoutError as error:
            waiting = f"; {self._pause}" if self._pause else ""
            raise RunFailed(
                f"not done within {self.spec.deadline_seconds:.0f} s (round {self._round}){waiting}"
            ) from error
        except (JournalError, OSError) as error:
            raise RunFailed(f"the journal of the run: {error}") from error
        finally:
            self._journal.close()
        self._progress.write("phase", {"phase": "evaluating"})
        parameters = {name: value.numpy() for name, value in self._optimizer.final_parameters().items()}
        try:
            result = await asyncio.to_thread(
                conclude_run,
                spec=self.spec,
                store=self._store,
                parameters=parameters,
                model_config=self._model_config,
                training_config=self.config,
                tokenizer=self.tokenizer(),
                vocabulary=self._vocabulary,
                champion=self._champion,
                rounds=self.records,
            )
        except (ArtifactError, StoreError, OSError) as error:
            raise RunFailed(f"the model could not be kept: {error}") from error
        self._progress.write("done", result)

    async def _begin(self) -> None:
        everyone = set(self.spec.sites)
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.spec.join_deadline_seconds):
                    await self._changed.wait_for(lambda: self._joined.keys() == everyone)
            self._leave_out(everyone - self._joined.keys(), "did not join")
            if len(self._joined) < self._min_sites:
                raise RunFailed(
                    f"{len(self._joined)} of {len(everyone)} sites joined within "
                    f"{self.spec.join_deadline_seconds:.0f} s, {self._min_sites} are needed; "
                    f"missing: {', '.join(sorted(everyone - self._joined.keys()))}"
                )
            self._draw_start()
            self._keep_state()
            self._enter_training()

    async def _resume(self) -> None:
        """Go on where the journal ends, as if nothing had happened. Raises JournalError."""
        header, state = self._journal.read_checkpoint()
        async with self._changed:
            self._vocabulary = Vocabulary(header["vocabulary"])
            self._model_config = ModelConfig.from_json(header["model"])
            tensors = {
                name: torch.from_numpy(np.require(value, requirements="W")) for name, value in state.items()
            }
            self._optimizer = ServerOptimizer.from_state(tensors, self.config)
            self._make_room()
            self.records = [RoundRecord(**record) for record in header["records"]]
            self._joined = {site: Counter() for site in header["joined"]}
            for entry in self._journal.read_rounds():
                if entry.record["number"] == len(self.records) + 1:
                    self._apply(unpack_rows(entry.gradient, self._shapes), RoundRecord(**entry.record))
            self._progress.complete(self.records)
            log.info("resuming in round %d", len(self.records) + 1)
            self._enter_training()

    def _enter_training(self) -> None:
        self._progress.write("phase", {"phase": "training", "rounds": self.config.rounds})
        self._open_round(len(self.records) + 1)

    def _keep_state(self) -> None:
        """Write the whole state down, so that the journal need not be read from the beginning."""
        state = {name: value.detach().numpy() for name, value in self._optimizer.state().items()}
        header = {
            "vocabulary": list(self._vocabulary.tokens),
            "model": self._model_config.to_json(),
            "joined": sorted(self._joined),
            "records": [asdict(record) for record in self.records],
        }
        self._journal.write_checkpoint(header, state)

    def _draw_start(self) -> None:
        counts: Counter[str] = Counter()
        for site_counts in self._joined.values():
            counts.update(site_counts)
        base = None if self._champion is None else self._champion.vocabulary
        self._vocabulary = build_vocabulary(
            counts, max_size=VOCABULARY_MAX_SIZE, min_count=VOCABULARY_MIN_COUNT, base=base
        )
        if self._champion is None:
            self._model_config = ModelConfig(vocabulary_size=len(self._vocabulary))
            parameters = initial_parameters(self._model_config, self.config.seed + self.spec.seed)
        else:
            weights = {name: torch.from_numpy(value.copy()) for name, value in self._champion.weights.items()}
            self._model_config, parameters = extend_vocabulary(
                weights,
                self._champion.network,
                len(self._vocabulary),
                self.config.seed + self.spec.seed,
            )
        self._optimizer = make_server_optimizer(parameters, self.config)
        self._make_room()
        self.records = []

    def _make_room(self) -> None:
        """Prepare what depends on the parameters' shapes, and what joining sites are told."""
        self._shapes = {name: tuple(value.shape) for name, value in self._optimizer.parameters.items()}
        self._sum = GradientSum(self._shapes, sites=len(self.spec.sites))
        self._plan = {
            "model": self._model_config.to_json(),
            "vocabulary": list(self._vocabulary.tokens),
            "max_length": self.config.max_length,
            "label_smoothing": self.config.label_smoothing,
            "seed": self.config.seed + self.spec.seed,
        }

    def _open_round(self, number: int) -> None:
        self._round = number
        self._answers = {}
        self._sum.clear()
        self._opened = time.monotonic()
        parameters = {name: value.detach().numpy() for name, value in self._optimizer.parameters.items()}
        self._broadcast = encode_message(self._header(), parameters)
        self._changed.notify_all()

    def _header(self) -> dict[str, Any]:
        validate = self._round == self.config.rounds or self._round % VALIDATE_EVERY_ROUNDS == 0
        return {"round": self._round, "done": self._round > self.config.rounds, "validate": validate}

    async def _lead_round(self) -> None:
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.spec.round_deadline_seconds):
                    await self._changed.wait_for(self._everyone_answered)
            late = self._joined.keys() - self._missing - self._answers.keys()
            self._leave_out(late, f"did not answer round {self._round}")
            if len(self._answers) < self._min_sites:
                await self._wait_for_quorum()
            self._close_round()

    async def _wait_for_quorum(self) -> None:
        """Pause, and say so, until enough sites are back; the run's deadline bounds the wait."""
        self._pause = (
            f"round {self._round}: {len(self._answers)} of {len(self.spec.sites)} sites answered within "
            f"{self.spec.round_deadline_seconds:.0f} s, {self._min_sites} are needed; "
            f"missing: {', '.join(sorted(self._missing))}"
        )
        log.warning("paused: %s", self._pause)
        self._progress.write("phase", {"phase": "paused", "reason": self._pause})
        await self._changed.wait_for(lambda: len(self._answers) >= self._min_sites)
        self._pause = ""
        self._progress.write("phase", {"phase": "training"})

    def _everyone_answered(self) -> bool:
        return bool(self._answers) and self._joined.keys() - self._missing <= self._answers.keys()

    def _leave_out(self, sites: set[str], why: str) -> None:
        if sites:
            self._missing |= sites
            log.warning("%s %s; going on without", ", ".join(sorted(sites)), why)
            self._write_missing()

    def _take_back(self, site: str) -> None:
        if site in self._missing:
            self._missing.discard(site)
            log.info("%s is back in round %d", site, self._round)
            self._write_missing()

    def _write_missing(self) -> None:
        self._progress.write("missing", {"sites": sorted(self._missing), "round": self._round})

    def _close_round(self) -> None:
        averaged = self._sum.average()
        # By name: sums of losses must not depend on who answered first either.
        record = self._record([self._answers[site] for site in sorted(self._answers)])
        self._journal.append(asdict(record), pack_rows(averaged))  # before it is applied
        self._apply(averaged, record)
        self._progress.write("round", asdict(record))
        if record.number % CHECKPOINT_EVERY_ROUNDS == 0:
            self._keep_state()
        self._bytes_up = self._bytes_down = 0
        self._open_round(self._round + 1)

    def _apply(self, averaged: Tensors, record: RoundRecord) -> None:
        self._optimizer.step({name: torch.from_numpy(value) for name, value in averaged.items()})
        self.records.append(record)

    def _record(self, updates: list[Update]) -> RoundRecord:
        batch = sum((update.batch for update in updates), NO_METRICS)
        validation = sum((update.validation for update in updates if update.validation), NO_METRICS)
        sites: dict[str, dict[str, float]] = {}
        for update in updates:
            sites[update.site] = {
                "samples": update.batch.samples,
                "loss": update.batch.loss,
                "accuracy": update.batch.accuracy,
            }
            if update.validation:
                sites[update.site]["validation_accuracy"] = update.validation.accuracy
        return RoundRecord(
            number=self._round,
            loss=batch.loss,
            accuracy=batch.accuracy,
            seconds=time.monotonic() - self._opened,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
            sites=sites,
            validation_accuracy=validation.accuracy if validation.samples else None,
        )

    async def fail(self, reason: str) -> None:
        """Tell everyone who waits that the run is over."""
        self._progress.write("failed", {"reason": reason})
        async with self._changed:
            self._failure = reason
            self._changed.notify_all()


# -- HTTP ------------------------------------------------------------------------------------------------------------


def create_app(aggregator: Aggregator, tokens: Mapping[str, str]) -> FastAPI:
    """The run's routes; `tokens` maps each site to its bearer token."""
    app = FastAPI(title="Huisheng aggregator", openapi_url=None)

    def authenticated_site(request: Request) -> str:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        # Every token is compared, in constant time, so that the answer's delay tells nothing.
        matches = [site for site, token in tokens.items() if hmac.compare_digest(given, token.encode())]
        if not matches:
            raise HTTPException(401, "no site has this token")
        return matches[0]

    async def read_message(request: Request) -> tuple[dict[str, Any], dict[str, Any], int]:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_MESSAGE_BYTES:
                raise HTTPException(413, f"a message may have {MAX_MESSAGE_BYTES} bytes")
        header, tensors = decode_message(bytes(body))
        return header, tensors, len(body)

    @app.exception_handler(MessageError)
    @app.exception_handler(InconsistentUpdates)
    async def refuse(request: Request, error: Exception) -> Response:
        log.warning("refused %s: %s", request.url.path, error)
        return Response(str(error), status_code=422, media_type="text/plain")

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"run": aggregator.spec.run}

    @app.get("/v1/settings")
    async def settings(site: str = Depends(authenticated_site)) -> dict[str, Any]:
        return {"run": aggregator.spec.run, "site": site, "tokenizer": aggregator.tokenizer().to_json()}

    @app.post("/v1/join")
    async def join(request: Request, site: str = Depends(authenticated_site)) -> Response:
        header, _, _ = await read_message(request)
        answer = await aggregator.join(site, read_token_counts(header.get("token_counts")))
        return Response(answer, media_type=MESSAGE_TYPE)

    @app.post("/v1/rounds/{number}/update")
    async def update(number: int, request: Request, site: str = Depends(authenticated_site)) -> Response:
        header, tensors, size_bytes = await read_message(request)
        validation = read_metrics(header["validation"]) if header.get("validation") else None
        gradients = aggregator.unpack(tensors)
        received = Update(site, number, gradients, read_metrics(header.get("batch")), validation)
        return Response(await aggregator.exchange(received, size_bytes), media_type=MESSAGE_TYPE)

    return app


def read_token_counts(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not all(
        isinstance(count, int) and count > 0 for count in value.values()
    ):
        raise MessageError("token_counts is not an object of positive counts")
    try:
        "".join(value).encode()
    except UnicodeEncodeError as error:  # a lone surrogate: the vocabulary could never be written
        raise MessageError(f"token_counts holds a token that is not text: {error}") from error
    return value


class RunServer(uvicorn.Server):
    """A server that leaves signals to serve_run: its own handling would wait for the held requests, then end us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_run(aggregator: Aggregator, app: FastAPI, sock: socket.socket) -> int:
    """Serve until the run has ended, or a signal ends it; returns the exit status: 0 done, 1 failed."""
    # Shorter than the launcher's patience between SIGTERM and SIGKILL.
    server = RunServer(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    leading = asyncio.create_task(aggregator.lead())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leading.cancel)
    await asyncio.wait({serving, leading}, return_when=asyncio.FIRST_COMPLETED)
    reason = ""
    if leading.cancelled():
        reason = "stopped from outside"
    elif not leading.done():
        leading.cancel()
        reason = "the server ended before the run"
    elif leading.exception() is not None:
        error = leading.exception()
        reason = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
        log.error("the run failed: %s", reason, exc_info=None if isinstance(error, RunFailed) else error)
    if reason:
        await aggregator.fail(reason)
        await asyncio.sleep(0.2)  # let the held requests carry the reason to the sites
    server.should_exit = True
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return 1 if reason else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m federated.aggregator", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--spec", required=True, type=Path, help="the run's specification (JSON)")
    parser.add_argument("--work-dir", required=True, type=Path, help="folder for progress.jsonl")
    parser.add_argument("--fd", type=int, help="an inherited, listening socket; else --host and --port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s aggregator %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    spec = RunSpec.from_json(options.spec.read_text(encoding="utf-8"))
    tokens = json.loads(os.environ[TOKENS_VARIABLE])
    sock = (
        socket.socket(fileno=options.fd)
        if options.fd is not None
        else socket.create_server((options.host, options.port))
    )
    mend_last_line(options.work_dir / "progress.jsonl")
    progress = ProgressLog(options.work_dir / "progress.jsonl")

    async def run() -> int:
        aggregator = Aggregator(spec, open_store(spec.store_url), progress, Journal(options.work_dir))
        return await serve_run(aggregator, create_app(aggregator, tokens), sock)

    try:
        return asyncio.run(run())
    except (ArtifactError, StoreError) as error:
        progress.write("failed", {"reason": str(error)})
        log.error("the run cannot begin: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
