"""What is measured, one subject after another, each while nothing else runs."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from ml.bench.answers import Expected, count_wrong
from ml.bench.computing import (
    InProcess,
    compute_probabilities,
    measure_in_process,
    measure_snownlp,
    measure_torch,
)
from ml.bench.models import Models
from ml.bench.processes import BenchError, Cores, Server, measure_start, read_rss_mb, run_on_core, serving
from ml.bench.reviews import BATCH_TEXTS, choose_reviews, make_batches, take_short, write_request
from ml.bench.swaps import Swaps, choose_telling, swap_under_load
from ml.bench.traffic import LOST, UNSENT, Traffic, ask_in_turns, measure_rate, measure_turns

SERVICE: Final = "ml.serve"
NOOP: Final = "ml.bench.noop"
CLIENTS: Final = 32
BATCH_CLIENTS: Final = 4  # enough that the server always has a request waiting
OFFERED: Final = 3.0  # times the capacity
OVERLOAD_CONNECTIONS: Final = 256  # eight times the clients of a busy service
IN_TIME: Final = 3.0  # times the p99 at capacity: what comes later is no use to whoever asked
CLIENT_BOUND_SHARE: Final = 0.9  # of its core; with more, the client is what was measured

Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int  # each goes through all that are compared with each other; the quieter half counts
    seconds: float  # of one measurement
    overload_seconds: float  # each time
    overloads: int  # times
    starts: int
    swaps: int
    reviews: int = 2048


FULL: Final = Plan(rounds=5, seconds=1.5, overload_seconds=2, overloads=5, starts=5, swaps=100)
QUICK: Final = Plan(rounds=1, seconds=1.0, overload_seconds=1, overloads=3, starts=3, swaps=10, reviews=1024)


@dataclass
class Bench:
    """One run: where things are, and what the client has seen so far."""

    cores: Cores
    models: Models
    store: Path  # of the service that is measured; its pointer is ours to move
    plan: Plan
    report: Report
    reviews: list[str] = field(default_factory=list)
    expected: dict[str, Any] = field(default_factory=dict)  # see answers.Expected
    checked: int = 0
    wrong: int = 0
    not_answered: int = 0  # outside of the overload, where some are to be refused
    client_cpu_share: dict[str, float] = field(default_factory=dict)

    @property
    def artifact(self) -> Path:
        """The one that is measured."""
        return self.models.folder / self.models.first

    def prepare(self) -> None:
        """Choose the reviews, and ask the models what the right answers are."""
        self.report("choosing reviews, and computing the right answers")
        self.reviews = choose_reviews(self.plan.reviews)
        for digest in filter(None, (self.models.first, self.models.second)):
            self.expected[digest] = run_on_core(
                self.cores.server, compute_probabilities, self.models.folder / digest, self.reviews
            )

    def serve(self) -> contextlib.AbstractContextManager[Server]:
        """Run the service over the store."""
        return serving(self.cores.server, SERVICE, *self.service_arguments)

    @property
    def service_arguments(self) -> tuple[str, ...]:
        """One process of it, on the store that is measured."""
        return ("--workers", "1", "--store", self.store.as_uri())

    def ask(
        self,
        name: str,
        server: Server,
        batches: Sequence[Sequence[str]],
        clients: int,
    ) -> Traffic:
        """Let clients ask for predictions of batches of texts, in turns."""
        traffic = run_on_core(
            self.cores.client,
            measure_turns,
            server.port,
            [write_request(batch) for batch in batches],
            clients=clients,
            seconds=self.plan.seconds,
            server_pid=server.process.pid,
        )
        self.note(name, traffic)
        self.not_answered += traffic.failed
        if not traffic.answered:
            raise BenchError(f"{name}: no request was answered with 200, but {traffic.statuses}")
        return traffic

    def note(self, name: str, traffic: Traffic) -> None:
        """Remember how busy the client was."""
        share = max(traffic.client_cpu_share, self.client_cpu_share.get(name, 0.0))
        self.client_cpu_share[name] = round(share, 3)

    def check(self, traffic: Traffic, rows: Sequence[int], texts_a_request: int = 1) -> None:
        """Compare the answers that were kept with the right ones; `rows` are the texts that were asked about."""
        expected: Expected = {self.models.first: self.expected[self.models.first][list(rows)]}
        self.checked += len(traffic.kept)
        self.wrong += count_wrong(traffic.kept, expected, texts_a_request)


@dataclass(frozen=True)
class Round:
    """What is compared with each other, measured within the same few seconds."""

    others_cpu_cores: float  # that everything else on the machine kept busy meanwhile
    in_process: InProcess
    noop: Traffic
    one: Traffic
    many: Traffic
    batch: Traffic
    snownlp_texts_per_s: float | None  # None where it is not installed
    torch_texts_per_s: float | None

    @property
    def batch_texts_per_s(self) -> float:
        return self.batch.rate * BATCH_TEXTS

    @property
    def ratio_single(self) -> float:
        return self.many.rate / min(self.noop.rate, self.in_process.single_rps)

    @property
    def ratio_batch(self) -> float:
        return self.batch_texts_per_s / self.in_process.batch64_texts_per_s


def measure_round(bench: Bench, service: Server, noop: Server) -> Round:
    """Measure the service and its two limits: the computing alone, and its HTTP server alone."""
    singles = [[review] for review in bench.reviews]
    batches = make_batches(bench.reviews)
    with noticing_others() as others_cpu_cores:
        in_process = run_on_core(
            bench.cores.server, measure_in_process, bench.artifact, bench.reviews, bench.plan.seconds
        )
        constant = bench.ask("noop", noop, singles, CLIENTS)
        one = bench.ask("c1", service, singles, 1)
        many = bench.ask("c32", service, singles, CLIENTS)
        batch = bench.ask("batch64", service, batches, BATCH_CLIENTS)
        others = measure_others(bench)
    found = Round(others_cpu_cores[0], in_process, constant, one, many, batch, *others)
    rows = range(len(bench.reviews))
    bench.check(found.one, rows)
    bench.check(found.many, rows)
    bench.check(found.batch, rows, BATCH_TEXTS)
    return found


def measure_others(bench: Bench) -> tuple[float | None, float | None]:
    """Give texts a second of SnowNLP, and of the network in torch; None for one that is not installed."""
    core, reviews, seconds = bench.cores.server, bench.reviews, bench.plan.seconds
    snownlp, torch = None, None
    if importlib.util.find_spec("snownlp") is None:
        bench.report("SnowNLP is not measured: the package snownlp is not installed")
    else:
        snownlp = run_on_core(core, measure_snownlp, reviews, seconds)
    if importlib.util.find_spec("torch") is None:
        bench.report("torch is not measured: it is not installed")
    else:
        torch = run_on_core(core, measure_torch, bench.artifact, reviews, seconds)
    return snownlp, torch


def choose_quiet(rounds: Sequence[Round]) -> list[Round]:
    """Give the half of the rounds, the odd one with them, in which others disturbed the least."""
    return sorted(rounds, key=lambda found: found.others_cpu_cores)[: (len(rounds) + 1) // 2]


def summarize_rounds(rounds: Sequence[Round]) -> dict[str, Any]:
    """Give the figures that come from the rounds: of each its median over the quiet ones."""
    quiet = choose_quiet(rounds)

    def median(read: Callable[[Round], float], digits: int = 1) -> float:
        return round(statistics.median(map(read, quiet)), digits)

    def pace_and_speedup(read: Callable[[Round], float | None]) -> tuple[float | None, float | None]:
        """Of another way to do the same, and how many times as fast the service is."""
        paces = [(found.batch_texts_per_s, pace) for found in quiet if (pace := read(found)) is not None]
        if not paces:
            return None, None
        return (
            round(statistics.median(other for _, other in paces), 1),
            round(statistics.median(ours / other for ours, other in paces), 1),
        )

    snownlp = pace_and_speedup(lambda found: found.snownlp_texts_per_s)
    torch = pace_and_speedup(lambda found: found.torch_texts_per_s)

    return {
        "single": {
            "p50_ms": median(lambda found: found.one.percentile_ms(50), 3),
            "p99_ms": median(lambda found: found.one.percentile_ms(99), 3),
            "rps_c1": median(lambda found: found.one.rate),
            "rps_c32": median(lambda found: found.many.rate),
            "c32_p99_ms": median(lambda found: found.many.percentile_ms(99), 3),
        },
        "batch64_texts_per_s": median(lambda found: found.batch_texts_per_s),
        "in_process": {
            "single_rps": median(lambda found: found.in_process.single_rps),
            "batch64_texts_per_s": median(lambda found: found.in_process.batch64_texts_per_s),
        },
        "noop_rps": median(lambda found: found.noop.rate),
        "ratio_single": median(lambda found: found.ratio_single, 3),
        "ratio_batch": median(lambda found: found.ratio_batch, 3),
        "p50_vs_in_process": median(
            lambda found: found.one.percentile_ms(50) * found.in_process.single_rps / 1000, 2
        ),
        "snownlp_texts_per_s": snownlp[0],
        "torch_eager_texts_per_s": torch[0],
        "speedup_vs_snownlp": snownlp[1],
        "speedup_vs_torch_eager": torch[1],
        "cpu_us": {  # of the server's core, a request or (64) a text: others disturb it less than the clock
            "noop": median(lambda found: found.noop.server_cpu_us),
            "in_process_single": median(lambda found: found.in_process.single_cpu_us),
            "in_process_batch64": median(lambda found: found.in_process.batch64_cpu_us),
            "c1": median(lambda found: found.one.server_cpu_us),
            "c32": median(lambda found: found.many.server_cpu_us),
            "batch64": median(lambda found: found.batch.server_cpu_us / BATCH_TEXTS),
        },
        "rounds": {
            "measured": len(rounds),
            "counted": len(quiet),
            "others_cpu_cores": [round(found.others_cpu_cores, 2) for found in quiet],
        },
    }


def measure_short(bench: Bench, service: Server) -> dict[str, Any]:
    """The same for texts as short as a comment, where HTTP weighs more beside the computing."""
    rows = [row for row, review in enumerate(bench.reviews) if review in set(take_short(bench.reviews))]
    reviews = [bench.reviews[row] for row in rows]
    in_process = run_on_core(
        bench.cores.server, measure_in_process, bench.artifact, reviews, bench.plan.seconds
    )
    one = bench.ask("short_c1", service, [[review] for review in reviews], 1)
    many = bench.ask("short_c32", service, [[review] for review in reviews], CLIENTS)
    bench.check(one, rows)
    bench.check(many, rows)
    return {
        "median_characters": statistics.median(map(len, reviews)),
        "p50_ms": round(one.percentile_ms(50), 3),
        "rps_c1": round(one.rate, 1),
        "rps_c32": round(many.rate, 1),
        "in_process_single_rps": round(in_process.single_rps, 1),
    }


def measure_overload(bench: Bench, service: Server) -> dict[str, Any]:
    """Offer OFFERED times the capacity for some seconds, several times; see `ask_at_rate` for how.

    A machine is not as fast at one time as at another. So each time is compared with the capacity right before and
    after it, and the median of the times is given: a change of pace in the midst of them all decides nothing.
    """
    requests = [write_request([review]) for review in bench.reviews]
    before = _measure_capacity(bench, service)
    times = []
    for _ in range(bench.plan.overloads):
        traffic = run_on_core(
            bench.cores.client,
            measure_rate,
            service.port,
            requests,
            rate=OFFERED * before.rate,
            connections=OVERLOAD_CONNECTIONS,
            seconds=bench.plan.overload_seconds,
            server_pid=service.process.pid,
        )
        bench.note("overload", traffic)
        bench.check(traffic, range(len(bench.reviews)))
        after = _measure_capacity(bench, service)
        times.append(Overload(before, traffic, after))
        before = after
    return summarize_overloads(times)


def _measure_capacity(bench: Bench, service: Server) -> Traffic:
    return bench.ask("capacity", service, [[review] for review in bench.reviews], CLIENTS)


@dataclass(frozen=True)
class Overload:
    """What came of offering too much, and what the server could do right before and after."""

    before: Traffic
    traffic: Traffic
    after: Traffic

    @property
    def capacity(self) -> float:
        return statistics.mean((self.before.rate, self.after.rate))

    @property
    def p99_at_capacity_ms(self) -> float:
        return statistics.mean((self.before.percentile_ms(99), self.after.percentile_ms(99)))

    @property
    def offered_x(self) -> float:
        return sum(self.traffic.statuses.values()) / self.traffic.seconds / self.capacity

    @property
    def goodput_ratio(self) -> float:
        return self.traffic.rate_within(IN_TIME * self.p99_at_capacity_ms) / self.capacity

    @property
    def p99_ratio(self) -> float:
        return self.traffic.percentile_ms(99) / self.p99_at_capacity_ms


def summarize_overloads(times: Sequence[Overload]) -> dict[str, Any]:
    """Give of each figure its median over the times."""

    def median(read: Callable[[Overload], float], digits: int) -> float | None:
        found = round(statistics.median(map(read, times)), digits)
        return found if math.isfinite(found) else None  # nothing was answered, and JSON has no NaN

    statuses: Counter[int] = sum((Counter(each.traffic.statuses) for each in times), Counter())
    return {
        "times": len(times),
        "offered_x": median(lambda each: each.offered_x, 2),
        "goodput_ratio": median(lambda each: each.goodput_ratio, 3),
        "p99_ms": median(lambda each: each.traffic.percentile_ms(99), 2),
        "p99_at_capacity_ms": median(lambda each: each.p99_at_capacity_ms, 2),
        "p99_ratio": median(lambda each: each.p99_ratio, 2),
        "accepted_ratio": median(lambda each: each.traffic.rate / each.capacity, 3),  # late ones too
        "capacity_rps": median(lambda each: each.capacity, 1),
        "each_capacity_rps": [
            round(rate, 1) for rate in (times[0].before.rate, *(each.after.rate for each in times))
        ],
        "each_goodput_ratio": [round(each.goodput_ratio, 3) for each in times],
        "capacity_clients": CLIENTS,
        # Of the server's core: with less than all of it, the clients were too few to find the capacity.
        "capacity_cpu_share": median(lambda each: busy_share(each.after), 3),
        "connections": OVERLOAD_CONNECTIONS,
        "statuses": name_statuses(statuses),
        # A request that was sent, those refused among them.
        "server_cpu_us": median(lambda each: each.traffic.server_cpu_us, 1),
    }


def busy_share(traffic: Traffic) -> float:
    """Give the share of its core that the server took."""
    return traffic.server_cpu_us * sum(traffic.statuses.values()) / traffic.seconds / 1e6


def name_statuses(statuses: Mapping[int, int]) -> dict[str, int]:
    """Give how many requests ended with which status, as JSON can have it."""
    names = {LOST: "lost", UNSENT: "unsent"}
    return {names.get(status, str(status)): count for status, count in sorted(statuses.items())}


def measure_swaps(bench: Bench) -> Swaps | None:
    """Swap the two models under load, in a service of its own; None where the store has only one."""
    if bench.models.second is None:
        bench.report("no swaps are measured: the store's pointer names no previous model")
        return None
    both = {digest: bench.expected[digest] for digest in (bench.models.first, bench.models.second)}
    rows = choose_telling(both)
    if not rows:
        bench.report("no swaps are measured: the two models say the same of every review")
        return None
    with bench.serve() as service:
        return run_on_core(
            bench.cores.client,
            swap_under_load,
            service.port,
            service.process.pid,
            bench.store,
            [write_request([bench.reviews[row]]) for row in rows],
            {digest: found[rows] for digest, found in both.items()},
            bench.plan.swaps,
        )


def measure_starts(bench: Bench) -> float:
    """Seconds from the service's process to its first "ready"."""
    return measure_start(bench.cores.server, SERVICE, *bench.service_arguments, times=bench.plan.starts)


def soak(bench: Bench, service: Server, requests: int) -> dict[str, Any]:
    """Send many requests, and read the service's memory along the way."""
    found = run_on_core(
        bench.cores.client,
        ask_and_weigh,
        service.port,
        service.process.pid,
        [write_request([review]) for review in bench.reviews],
        requests,
    )
    return {"requests": requests, **found}


def ask_and_weigh(
    port: int, pid: int, requests: Sequence[bytes], count: int, points: int = 20
) -> dict[str, Any]:
    """Ask `count` times; gives how many failed, and the memory at `points` points of the way, in MB."""
    process = psutil.Process(pid)
    failed, memory, step = 0, [], max(1, count // points)
    with contextlib.closing(ask_in_turns(port, requests, CLIENTS)) as answers:
        for number, answer in enumerate(answers, start=1):
            failed += answer.status != 200
            if number % step == 0:
                memory.append(round(read_rss_mb(process), 1))
            if number >= count:
                break
    return {"failed": failed, "rss_mb": memory}


@contextmanager
def noticing_others() -> Iterator[list[float]]:
    """Give, at the end, how many cores everything else on the machine kept busy meanwhile: a quiet one says 0."""
    found: list[float] = []
    began = _busy_seconds()
    yield found
    ended = _busy_seconds()
    found.append((ended[1] - began[1] - (ended[2] - began[2])) / (ended[0] - began[0]))


def _busy_seconds() -> tuple[float, float, float]:
    """Seconds of the clock, of work on all processors, and of our own work, with that of what we have started."""
    all_of_them = psutil.cpu_times()
    busy = sum(all_of_them) - all_of_them.idle - getattr(all_of_them, "iowait", 0.0)
    ours = sum(os.times()[:4])  # those that have ended are in it
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            ours += sum(child.cpu_times()[:2])
    return time.perf_counter(), busy, ours
