"""The aggregator of one run: hands parameters down, takes gradients up, averages, steps, round after round.

    python -m federated.aggregator --spec run.json --work-dir DIR (--fd N | --host H --port P)

On a cluster, where a pod may be moved at any time: --resumable --mirror --heldout FILE, and a volume as work folder.

With --tls-cert FILE --tls-key FILE it serves HTTPS only; with --tls-client-ca FILE only sites that have a certificate.
Routes (all but /livez want the site's bearer token): GET /v1/settings · POST /v1/join · POST /v1/rounds/N/update.
Join and update are held requests: the answer to an update is the next round's parameters, so a round is one exchange
per site and nobody polls. What happens is written to progress.jsonl in the work folder.

The store is the one that ARTIFACT_STORE_URL names, with the token in ARTIFACT_STORE_TOKEN; else the specification's.

Exit status: 0 the run is done, 1 it failed (the diary says why), 2 wrong usage, 11 the store could not be reached, or
another aggregator works in the folder, 143 told to stop amid a run that another process is to go on with (--resumable).
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from federated.averaging import GradientSum, InconsistentUpdates
from federated.journal import (
    Journal,
    JournalError,
    WorkDirTaken,
    held_work_dir,
    prune_work_dirs,
)
from federated.mirror import DiaryMirror
from federated.protocol import (
    DIARY,
    EXIT_MOVED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    NO_METRICS,
    TOKENS_VARIABLE,
    Message,
    Metrics,
    ProgressLog,
    Refusal,
    RoundRecord,
    RunSpec,
    Tensors,
    Update,
    batch_share,
    configure_training,
    encode_message,
    encode_pieces,
    mend_last_line,
    read_progress,
    size_of,
)
from federated.refusals import Refusals
from federated.report import conclude_run, read_heldout
from federated.rows import ROWS, pack_rows, pack_tensors, unpack_tensors
from federated.server import AggregatorServer, Refused
from federated.store import (
    STORE_TOKEN_VARIABLE,
    STORE_URL_VARIABLE,
    Store,
    StoreError,
    open_store,
    verify_bytes,
    verify_file,
)
from federated.strategies import STRATEGIES, network_tensors
from federated.tls import TlsError, make_server_context
from ml.artifact import Artifact, ArtifactError, load_artifact
from ml.model import extend_vocabulary, initial_parameters
from ml.model_config import FIRST_NETWORK, ModelConfig
from ml.optimizer import ServerOptimizer, local_rate_at
from ml.threads import run_side_by_side, threads_of_process
from ml.tokenizer import TokenizerSettings
from ml.training_config import TrainingConfig
from ml.vocabulary import Vocabulary, build_vocabulary

VOCABULARY_MAX_SIZE = 12_000
VOCABULARY_MIN_COUNT = 2
VALIDATE_EVERY_ROUNDS = 30
MAX_ABSENCES = 3
FAREWELL_SECONDS = 0.5
MOVING_SECONDS = 5.0  # for the diary's copy when this process is told to stop
WORK_DIR_SECONDS = 120.0  # in which the aggregator before should have ended

log = logging.getLogger("federated.aggregator")


def prepare_rounds(config: TrainingConfig) -> None:
    """Go through a round of a tiny network, so that all that rounds call is compiled before the first."""
    shapes = {"matrix": (2, 3), "vector": (2,)}
    optimizer = ServerOptimizer(
        {name: torch.zeros(shape) for name, shape in shapes.items()}, config, {"matrix"}
    )
    total = GradientSum(shapes, rowwise=optimizer.rowwise)
    gradient = {name: torch.zeros(shape) for name, shape in shapes.items()}
    sent = {**pack_rows("matrix", gradient.pop("matrix"), np.zeros(1, np.int32)), **pack_tensors(gradient)}
    total.add(Update("", 1, sent, Metrics(1, 0.0, 0)))
    optimizer.step(unpack_tensors(total.take_average(), shapes))


class RunFailed(Exception):
    """The run cannot go on; the text is what its page will say."""


class StoreAway(RunFailed):
    """The store could not be reached when the model was to be kept: another process may succeed later."""


class Aggregator:
    """One run's state. `lead` runs in one thread, what sites ask in others; `_changed` guards everything."""

    def __init__(
        self,
        spec: RunSpec,
        store: Store,
        progress: ProgressLog,
        journal: Journal,
        *,
        min_sites: int | None = None,
        heldout: Path | None = None,
    ) -> None:
        self.spec = spec
        self._journal = journal
        self._resuming = journal.exists()
        self._writer = ThreadPoolExecutor(1, "journal")  # writes while the optimizer steps
        # Beside the leading thread, tensors are averaged and stepped; torch's own would meet after every operation.
        self._threads = ThreadPoolExecutor(max(1, threads_of_process() - 1), "tensors")
        self._store = store
        self._heldout = heldout  # a file that holds them; else they are read from the store
        if heldout is not None:
            verify_file(heldout, spec.heldout_digest)  # now, not after the last round
        self._progress = progress
        self._refusals = Refusals(progress)
        # More than half of the sites: a run must not become one site's model because the others died.
        self._min_sites = min_sites if min_sites is not None else len(spec.sites) // 2 + 1
        self._network = replace(FIRST_NETWORK, **spec.network)
        self._champion = self._load_champion()
        self._start = self._choose_start()
        self._changed = threading.Condition()
        self._joined: set[str] = set()
        self._token_counts: Counter[str] = Counter()  # of all sites together, until the vocabulary is made
        self._missing: set[str] = set()
        self._absences: Counter[str] = Counter()  # site → how often it was waited for in vain
        self._round = 0  # 0 until the sites have joined
        self._adding: set[str] = set()  # sites whose update is being added: the round waits for them
        self._answers: dict[str, Update] = {}  # what the sites said this round, without their gradients
        self._bytes_up = self._bytes_down = 0
        self._plan: dict[str, Any] = {}
        self._touched: dict[str, np.ndarray] | None = (
            None  # rows that the last round moved; None if there was none
        )
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the parameters, once they are known
        # The same buffers for all sites; while one of these is still being sent, the next round must not write there.
        self._changes: Message = []  # what the last round changed of the parameters
        self._welcome: Message = []  # the plan and all parameters, for sites that know less; made when one asks
        self._failure: str | None = None
        self._vocabulary: Vocabulary
        self.records: list[RoundRecord] = []
        self._pause = ""  # what the run waits for, while too few sites answer
        self.config = configure_training(spec.training, first=self._start is None, rounds=spec.rounds)
        self._strategy = STRATEGIES[self.config.strategy]

    def _load_champion(self) -> Artifact | None:
        if self.spec.champion_digest is None:
            return None
        folder = self._store.fetch_artifact(self.spec.champion_digest, self._journal.folder / "artifacts")
        return load_artifact(folder, self.spec.champion_digest)

    def _choose_start(self) -> Artifact | None:
        """The champion, unless it reads other tokens than are wanted; None trains from scratch."""
        if self._champion is None or not self.spec.tokenizer:
            return self._champion
        return self._champion if self._champion.tokenizer == self._wanted_tokenizer() else None

    def _wanted_tokenizer(self) -> TokenizerSettings:
        return TokenizerSettings.from_json({**TokenizerSettings().to_json(), **self.spec.tokenizer})

    def tokenizer(self) -> TokenizerSettings:
        return self._wanted_tokenizer() if self._start is None else self._start.tokenizer

    # -- What sites ask ------------------------------------------------------------------------------------------

    def name(self) -> str:
        """The run's name."""
        return self.spec.run

    def describe(self, site: str) -> dict[str, Any]:
        """What a site should know before it joins."""
        everyone = sum(other.samples for other in self.spec.sites.values())
        share = batch_share(self.config.global_batch_size, self.spec.sites[site].samples, everyone)
        return {
            "run": self.spec.run,
            "site": site,
            "tokenizer": self.tokenizer().to_json(),
            "batch_size": share,
        }

    def announce(self, site: str, token_counts: Mapping[str, int]) -> None:
        """Take a site in; one that comes late, or back, starts in the present round."""
        with self._changed:
            self._refuse_unreliable(site)
            if site not in self._joined and self._round == 0:  # of one that joins again they are in already
                self._token_counts.update(token_counts)
            self._joined.add(site)
            self._take_back(site)
            self._changed.notify_all()

    def wait_for_training(self) -> Message:
        """Hold the site until training begins; gives the plan and the present round's parameters."""
        with self._changed:
            self._changed.wait_for(lambda: self._round > 0 or self._failure is not None)
            self._raise_failure()
            return self._send(self._whole())

    def _whole(self) -> Message:
        """The plan and all parameters of the present round."""
        if not self._welcome:
            parameters = pack_tensors(self._optimizer.parameters)
            self._welcome = [memoryview(encode_message({**self._plan, **self._header()}, parameters))]
        return self._welcome

    def receive(self, update: Update, size_bytes: int) -> str:
        """Take an update. One of an earlier round is not counted: its site goes on from the present one.

        Gives the reason when it has not been counted, then or before; else an empty string.
        """
        if self._admit(update, size_bytes):
            self._add(update)
        with self._changed:
            self._take_back(update.site)
            self._changed.notify_all()
            return self._why_not_counted(update)

    def _admit(self, update: Update, size_bytes: int) -> bool:
        """Say whether the update is to be added, as a site's first of the round, which then waits for it."""
        with self._changed:
            # Sites that an aggregator before this one had wait until it knows where that one was; and what is sent
            # again while the first is being added, until that has gone well or not.
            self._changed.wait_for(
                lambda: (not self._resuming and update.site not in self._adding) or self._failure is not None
            )
            self._raise_failure()
            self._refuse_unreliable(update.site)
            if self._round == 0 or update.round > min(self._round, self.config.rounds):
                raise Refused(
                    409,
                    f"round {update.round} of {self.config.rounds} has not begun; the present one is {self._round}",
                )
            if update.round < self._round:
                return False
            self._check_claims(update)
            self._bytes_up += size_bytes
            if update.site in self._answers:
                return False
            self._adding.add(update.site)
            return True

    def _add(self, update: Update) -> None:
        """Add the update to the round's sum, beside other sites'; raises InconsistentUpdates for one that does not fit.

        Only then the site counts as present: one that sends nonsense must not hold up every round.
        """
        answer = None
        try:
            self._sum.add(update)
            answer = replace(update, gradients={})  # the sum holds them
        finally:
            with self._changed:
                self._adding.discard(update.site)
                if answer is not None:
                    self._answers[update.site] = answer
                self._changed.notify_all()

    def _why_not_counted(self, update: Update) -> str:
        """Empty too for an update of a closed round that is only sent again: it has been counted."""
        closed = self.records[: update.round][-1:]
        if update.round == self._round or (closed and update.site in closed[0].sites):
            return ""
        return f"round {update.round} was closed already: the update came too late and was not counted"

    def note_refusal(self, site: str, address: str, status: int, reason: str) -> None:
        """Write down what was refused: of a site, or of a stranger at an address."""
        self._refusals.note(Refusal(site, address, self._round, status, reason, time.time()))

    def wait_for_round(self, after: int) -> Message:
        """Hold the site until the round is closed; gives what the next one's parameters are.

        What has changed is enough for a site that knows the round before; one that fell behind gets all.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._round > after or self._failure is not None)
            self._raise_failure()
            return self._send(self._changes if self._changes and self._round == after + 1 else self._whole())

    def _check_claims(self, update: Update) -> None:
        """Refuse more samples than the site has: sample counts are the weights of the average."""
        site = self.spec.sites[update.site]
        validated = 0 if update.validation is None else update.validation.samples
        if (
            update.batch.samples > site.samples * self.config.local_steps
            or validated > site.validation_samples
        ):
            raise InconsistentUpdates(
                f"site {update.site}: claims {update.batch.samples} samples in {self.config.local_steps} batches "
                f"and {validated} for validation, its shards hold {site.samples} and {site.validation_samples}"
            )

    def _send(self, message: Message) -> Message:
        self._bytes_down += size_of(message)
        return message

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise Refused(410, self._failure)

    # -- The run -------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """Lead the run from the first join to its report. Raises RunFailed."""
        self._deadline = time.monotonic() + self.spec.deadline_seconds
        self._prepared = self._threads.submit(prepare_rounds, self.config)
        try:
            with self._changed:
                if self._resuming:
                    self._resume()
                else:
                    self._begin()
                while self._round <= self.config.rounds:
                    self._lead_round()
        except (JournalError, OSError) as error:
            raise RunFailed(f"the journal of the run: {error}") from error
        except RuntimeError as error:
            # A signal that came between giving the lock up and waiting left nothing for `with` to release.
            if isinstance(error.__context__, Stopped):
                raise error.__context__ from None
            raise
        finally:
            self._writer.shutdown()
            self._threads.shutdown()
            self._journal.close()
            self._refusals.flush()
        self._conclude()

    def _conclude(self) -> None:
        self._progress.write("phase", {"phase": "evaluating"})
        torch.set_num_threads(threads_of_process())
        parameters = pack_tensors(network_tensors(self._optimizer.final_parameters()))
        try:
            result = conclude_run(
                spec=self.spec,
                store=self._store,
                heldout=self._read_heldout(),
                parameters=parameters,
                model_config=self._model_config,
                training_config=self.config,
                tokenizer=self.tokenizer(),
                vocabulary=self._vocabulary,
                champion=self._champion,
                start=self._start,
                rounds=self.records,
            )
        except (ArtifactError, OSError) as error:
            passing = isinstance(error, StoreError) and not error.permanent
            raise (StoreAway if passing else RunFailed)(f"the model could not be kept: {error}") from error
        self._progress.write("done", result)

    def _read_heldout(self) -> list[dict[str, str]]:
        if self._heldout is None:
            return read_heldout(self._store.read_shard(self.spec.heldout_digest))
        content = self._heldout.read_bytes()
        verify_bytes(content, self.spec.heldout_digest, str(self._heldout))
        return read_heldout(content)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds, at most so long; says whether it does.

        Raises RunFailed when the run's own time is up, or when the run was failed from outside.
        """
        left = max(0.0, self._deadline - time.monotonic())
        self._changed.wait_for(lambda: condition() or self._failure is not None, min(seconds, left))
        if self._failure is not None:
            raise RunFailed(self._failure)
        if condition():
            return True
        if time.monotonic() >= self._deadline:
            waiting = f"; {self._pause}" if self._pause else ""
            raise RunFailed(
                f"not done within {self.spec.deadline_seconds:.0f} s (round {self._round}){waiting}"
            )
        return False

    def _begin(self) -> None:
        everyone = set(self.spec.sites)
        self._wait(lambda: self._joined == everyone, self.spec.join_deadline_seconds)
        self._leave_out(everyone - self._joined, "did not join")
        if len(self._joined) < self._min_sites:
            raise RunFailed(
                f"{len(self._joined)} of {len(everyone)} sites joined within "
                f"{self.spec.join_deadline_seconds:.0f} s, {self._min_sites} are needed; "
                f"missing: {', '.join(sorted(everyone - self._joined))}"
            )
        self._draw_start()
        self._keep_state()
        self._enter_training()

    def _resume(self) -> None:
        """Go on where the journal ends, as if nothing had happened. Raises JournalError."""
        header, state = self._journal.read_checkpoint()
        self._vocabulary = Vocabulary(header["vocabulary"])
        self._model_config = ModelConfig.from_json(header["model"])
        tensors = {name: torch.from_numpy(value) for name, value in state.items()}
        self._optimizer = ServerOptimizer.from_state(tensors, self._strategy.server_config(self.config))
        self._make_room()
        self.records = [RoundRecord(**record) for record in header["records"]]
        self._joined |= set(header["joined"])
        for entry in self._journal.read_rounds():
            if entry.record["number"] == len(self.records) + 1:
                self._apply(entry.gradient, RoundRecord(**entry.record))
        self._progress.complete(self.records)
        log.info("resuming in round %d", len(self.records) + 1)
        self._resuming = False
        self._enter_training()

    def _enter_training(self) -> None:
        self._prepared.result()
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
        counts, self._token_counts = self._token_counts, Counter()
        base = None if self._start is None else self._start.vocabulary
        self._vocabulary = build_vocabulary(
            counts,
            max_size=self.spec.vocabulary.get("max_size", VOCABULARY_MAX_SIZE),
            min_count=self.spec.vocabulary.get("min_count", VOCABULARY_MIN_COUNT),
            base=base,
        )
        if self._start is None:
            self._model_config = replace(self._network, vocabulary_size=len(self._vocabulary))
            parameters = initial_parameters(self._model_config, self.config.seed + self.spec.seed)
        else:
            weights = {name: torch.from_numpy(value.copy()) for name, value in self._start.weights.items()}
            self._model_config, parameters = extend_vocabulary(
                weights,
                self._start.network,
                len(self._vocabulary),
                self.config.seed + self.spec.seed,
            )
        self._optimizer = self._strategy.start(parameters, self.config)
        self._make_room()
        self.records = []

    def _make_room(self) -> None:
        """Prepare what depends on the parameters' shapes, and what joining sites are told."""
        self._shapes = {name: tuple(value.shape) for name, value in self._optimizer.parameters.items()}
        self._sum = GradientSum(self._shapes, sites=len(self.spec.sites), rowwise=self._optimizer.rowwise)
        self._plan = {
            "model": self._model_config.to_json(),
            "vocabulary": list(self._vocabulary.tokens),
            "max_length": self.config.max_length,
            "label_smoothing": self.config.label_smoothing,
            "strategy": self.config.strategy,
            "local_steps": self.config.local_steps,
            "encoding": self.config.encoding,
            "seed": self.config.seed + self.spec.seed,
            "rounds": self.config.rounds,
        }

    def _open_round(self, number: int) -> None:
        self._round = number
        self._answers = {}
        self._opened = time.monotonic()
        self._changes, self._welcome = [], []
        if self._touched is not None:
            self._changes = encode_pieces(self._header(), self._what_changed(self._touched))
        self._changed.notify_all()

    def _what_changed(self, touched: Mapping[str, np.ndarray]) -> Tensors:
        """Copies of a round's parameters as far as they differ from those of the round before."""
        parameters = self._optimizer.parameters
        some = {name: rows for name, rows in touched.items() if len(rows) < len(parameters[name])}
        changed: Tensors = {
            name: value.numpy().copy() for name, value in parameters.items() if name not in some
        }
        jobs = [functools.partial(pack_rows, name, parameters[name], rows) for name, rows in some.items()]
        for tensors in run_side_by_side(jobs, self._threads):
            changed |= tensors
        return changed

    def _header(self) -> dict[str, Any]:
        validate = self._round == self.config.rounds or self._round % VALIDATE_EVERY_ROUNDS == 0
        return {
            "round": self._round,
            "done": self._round > self.config.rounds,
            "validate": validate,
            "local_rate": local_rate_at(self._round - 1, self.config),
        }

    def _lead_round(self) -> None:
        self._wait(self._everyone_answered, self.spec.round_deadline_seconds)
        self._changed.wait_for(lambda: not self._adding)
        late = self._joined - self._missing - self._answers.keys()
        self._leave_out(late, f"did not answer round {self._round}")
        if len(self._answers) < self._min_sites:
            self._wait_for_quorum()
        self._close_round()

    def _wait_for_quorum(self) -> None:
        """Pause, and say so, until enough sites are back; the run's deadline bounds the wait."""
        self._pause = (
            f"round {self._round}: {len(self._answers)} of {len(self.spec.sites)} sites answered within "
            f"{self.spec.round_deadline_seconds:.0f} s, {self._min_sites} are needed; "
            f"missing: {', '.join(sorted(self._missing))}"
        )
        log.warning("paused: %s", self._pause)
        self._progress.write("phase", {"phase": "paused", "reason": self._pause})
        self._wait(lambda: len(self._answers) >= self._min_sites and not self._adding, math.inf)
        self._pause = ""
        self._progress.write("phase", {"phase": "training"})

    def _everyone_answered(self) -> bool:
        heard = bool(self._answers) and not self._adding
        return heard and self._joined - self._missing <= self._answers.keys()

    def _leave_out(self, sites: set[str], why: str) -> None:
        if sites:
            self._missing |= sites
            self._absences.update(sites)
            log.warning("%s %s; going on without", ", ".join(sorted(sites)), why)
            self._write_missing()

    def _refuse_unreliable(self, site: str) -> None:
        """Each absence has cost everybody a deadline: a site that comes and goes is not taken back for ever."""
        if self._absences[site] >= MAX_ABSENCES:
            raise Refused(
                403, f"{site} has been waited for in vain {MAX_ABSENCES} times and is left out of this run"
            )

    def _take_back(self, site: str) -> None:
        if site in self._missing:
            self._missing.discard(site)
            log.info("%s is back in round %d", site, self._round)
            self._write_missing()

    def _write_missing(self) -> None:
        self._progress.write("missing", {"sites": sorted(self._missing), "round": self._round})

    def _close_round(self) -> None:
        averaged = self._strategy.weigh(self._sum.take_average(self._threads), self._participation())
        # By name: sums of losses must not depend on who answered first either.
        record = self._record([self._answers[site] for site in sorted(self._answers)])
        # Whoever dies between the two repeats the round, or replays it; nobody has heard of the next one yet.
        written = self._writer.submit(self._journal.append, asdict(record), averaged)
        self._apply(averaged, record)
        written.result()
        self._progress.write("round", asdict(record))
        if self._journal.is_long():
            self._keep_state()
        self._bytes_up = self._bytes_down = 0
        self._open_round(self._round + 1)

    def _apply(self, averaged: Tensors, record: RoundRecord) -> None:
        self._optimizer.step(unpack_tensors(averaged, self._shapes), self._threads)
        self._touched = {name: averaged[name + ROWS] for name in self._optimizer.rowwise}
        self.records.append(record)

    def _participation(self) -> float:
        """The share of all samples whose sites answered this round."""
        everyone = sum(site.samples for site in self.spec.sites.values())
        return sum(self.spec.sites[site].samples for site in self._answers) / everyone

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

    def fail(self, reason: str) -> None:
        """Tell everyone who waits that the run is over."""
        self._progress.write("failed", {"reason": reason})
        with self._changed:
            self._failure = reason
            self._changed.notify_all()


# -- As a process ------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """A signal asks for an end. Not an Exception: nothing on the way may take it for a failure of its own."""


def stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # told once is enough: what follows is to be finished
    raise Stopped


def lead_and_serve(aggregator: Aggregator, server: AggregatorServer, *, resumable: bool = False) -> int:
    """Serve until the run has ended, or a signal ends it; returns the exit status.

    Of a resumable run nobody is told that it is over when only this process is: the sites try until there is another.
    """
    with server.serving():
        reason = ""
        try:
            aggregator.lead()
        except Stopped:
            if resumable:
                log.info("told to stop; whoever is started next goes on where the journal ends")
                return EXIT_MOVED
            reason = "stopped from outside"
        except RunFailed as error:
            if resumable and isinstance(error, StoreAway):
                log.error("%s; whoever is started next tries again", error)
                return EXIT_UNREACHABLE
            reason = str(error)
            log.error("the run failed: %s", reason)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception("the run failed")
        if reason:
            aggregator.fail(reason)
        # Let the held requests carry the last answer, or the reason, to the sites.
        time.sleep(FAREWELL_SECONDS)
    return 1 if reason else 0


def open_store_of(spec: RunSpec, patience_seconds: float | None) -> Store:
    """The store that the environment names, else the run's specification: the blog may know it by another address."""
    url = os.environ.get(STORE_URL_VARIABLE) or spec.store_url
    return open_store(url, token=os.environ.get(STORE_TOKEN_VARIABLE, ""), patience_seconds=patience_seconds)


def start_mirror(diary: Path, spec: RunSpec) -> DiaryMirror:
    """Begin to copy the diary to the store."""
    store = open_store_of(spec, patience_seconds=0)  # the mirror itself tries again, with the newest
    mirror = DiaryMirror(diary, lambda content: store.put_run_file(spec.run, DIARY, content))
    mirror.start()
    return mirror


def run_aggregator(options: argparse.Namespace, spec: RunSpec, listener: socket.socket) -> int:
    """Lead the run in its folder, from its beginning or from where another process has left it."""
    diary = options.work_dir / DIARY
    mend_last_line(diary)
    progress = ProgressLog(diary)
    if options.resumable:
        phase = read_progress(diary).phase
        if phase == "failed" and options.resume_failed:
            progress.write("phase", {"phase": "starting"})
        elif phase in ("done", "failed"):
            log.info("the run has ended before: it is %s", phase)
            return 0 if phase == "done" else 1
    try:
        tls = None
        if options.tls_cert:
            tls = make_server_context(options.tls_cert, options.tls_key, options.tls_client_ca)
        store = open_store_of(spec, options.patience_seconds)
        tokens = json.loads(os.environ[TOKENS_VARIABLE])
        aggregator = Aggregator(spec, store, progress, Journal(options.work_dir), heldout=options.heldout)
        log.info("startup complete")
        server = AggregatorServer(listener, aggregator, tokens, tls)
        return lead_and_serve(aggregator, server, resumable=options.resumable)
    except (ArtifactError, StoreError, TlsError) as error:
        log.error("the run cannot begin: %s", error)
        if options.resumable and isinstance(error, StoreError) and not error.permanent:
            return EXIT_UNREACHABLE
        progress.write("failed", {"reason": str(error)})
        return 1
    except Stopped:
        if options.resumable:
            return EXIT_MOVED
        progress.write("failed", {"reason": "stopped from outside"})
        return 1


def run_mirrored(options: argparse.Namespace, spec: RunSpec, listener: socket.socket) -> int:
    """The same, and what the diary says last is in the store before this process ends, if that can be had."""
    mirror = start_mirror(options.work_dir / DIARY, spec)
    status = run_aggregator(options, spec, listener)
    if status in (EXIT_MOVED, EXIT_UNREACHABLE):
        mirror.finish(MOVING_SECONDS)  # as far as it goes: the next one copies it all again
    elif not mirror.finish():
        return EXIT_UNREACHABLE  # the next one finds that the run has ended, and says so to the store
    return status


def listen_at(host: str, port: int, sites: int) -> socket.socket:
    """A listening socket; `::` is every address of either kind."""
    if ":" not in host:
        return socket.create_server((host, port), backlog=sites + 8)
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6,
        backlog=sites + 8,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m federated.aggregator", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--spec", required=True, type=Path, help="the run's specification (JSON)")
    parser.add_argument("--work-dir", required=True, type=Path, help="folder for diary and journal")
    parser.add_argument("--fd", type=int, help="an inherited, listening socket; else --host and --port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument(
        "--tls-cert", type=Path, help="serve HTTPS with this certificate (PEM, with its chain)"
    )
    parser.add_argument("--tls-key", type=Path, help="the certificate's key (PEM, without a passphrase)")
    parser.add_argument(
        "--tls-client-ca", type=Path, help="let in only sites with a certificate of this CA (PEM)"
    )
    parser.add_argument(
        "--heldout", type=Path, help="a file that holds the held-out samples; else they come from the store"
    )
    parser.add_argument("--mirror", action="store_true", help="copy the diary to the store as it grows")
    parser.add_argument(
        "--resumable",
        action="store_true",
        help="when told to stop, leave the run for another process to go on with, instead of ending it",
    )
    parser.add_argument(
        "--resume-failed",
        action="store_true",
        help="with --resumable: go on with a run that has failed, or was stopped",
    )
    parser.add_argument(
        "--prune-days",
        type=float,
        metavar="N",
        help="remove the work folders of other runs beside this one, N days after something was written there",
    )
    parser.add_argument(
        "--patience-seconds",
        type=float,
        help="how long the store may be away before the run gives up (default: some seconds)",
    )
    options = parser.parse_args(arguments)
    if options.heldout and not options.heldout.is_file():
        parser.error(f"--heldout {options.heldout} is no file: fetch it first (python -m federated.fetch)")
    if bool(options.tls_cert) != bool(options.tls_key) or (options.tls_client_ca and not options.tls_cert):
        parser.error("--tls-cert and --tls-key go together, and --tls-client-ca with them")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s aggregator %(message)s")
    torch.set_num_threads(1)  # until the rounds are over: see Aggregator
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if not os.environ.get(TOKENS_VARIABLE):
        log.error("%s is not in the environment: set it to the sites' tokens, as JSON", TOKENS_VARIABLE)
        return EXIT_USAGE
    spec = RunSpec.from_json(options.spec.read_text(encoding="utf-8"))
    listener = (
        socket.socket(fileno=options.fd)
        if options.fd is not None
        else listen_at(options.host, options.port, len(spec.sites))
    )
    options.work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with held_work_dir(options.work_dir, WORK_DIR_SECONDS):
            if options.prune_days is not None:
                prune_work_dirs(options.work_dir.parent, options.work_dir, options.prune_days * 86_400)
            return (run_mirrored if options.mirror else run_aggregator)(options, spec, listener)
    except StoreError as error:  # no address of a store
        log.error("%s", error)
        return EXIT_USAGE
    except WorkDirTaken as error:
        log.error("%s", error)
        return EXIT_UNREACHABLE
    except Stopped:  # before there was anything to stop
        return EXIT_MOVED if options.resumable else 1


if __name__ == "__main__":
    sys.exit(main())
