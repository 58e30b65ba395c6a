"""The command `python -m blog_site.bench` (`make bench-blog`)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console

from blog_site.bench.servers import Blog, run_step, running_data, running_services, running_web
from blog_site.bench.traffic import Traffic, ask, percentile, write_get, write_post
from blog_site.bench.weight import weigh_page
from infra.setup.servers import ServerError
from ml.bench.processes import BenchError, Cores, choose_cores, run_on_core

CLIENTS: Final = 8  # enough that the server always has a request waiting
USERS: Final = 20
TOKEN: Final = "a" * 32  # a CSRF cookie is what the browser says it is
_EPILOG = """\
MariaDB, Redis, the blog under gunicorn, the inference service and the workers run on loopback, with all they keep in a
temporary folder; gunicorn has one core, whoever asks another. One line of JSON comes last:
  article_5000_comments  queries of a page that is in no cache, and of the same page again; p50 and p99 of one reader,
                         requests a second of 8, and those of a view that returns a constant, in turns with it
  post_comment           20 people post without a pause, with the inference service and the workers running and stopped
  search_100k            one reader after the other, words of all kinds; queries by kind, and what the index costs
  page_weight_kb         the article's HTML, styles and scripts, each compressed, in 1000 bytes
Percentiles are of all requests in the window, by nearest rank: latencies that were measured, not interpolated. A client
asks again when it is answered (a closed loop), so a slow answer delays the next question. Times are of this machine,
and of what else it does meanwhile (others_cpu_cores); ratios can be compared with another's.

  make bench-blog QUICK=1
  make bench-blog ARGS="--articles 20000"

exit status: 0 measured, 1 cannot be measured, 2 wrong arguments, 130 interrupted"""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    articles: int
    comments: int
    rounds: int  # of article and constant in turns; of posting with services and without
    seconds: float  # of one measurement
    posts: int  # comments posted in one measurement
    searches: int


FULL: Final = Plan(articles=100_000, comments=5000, rounds=5, seconds=4.0, posts=600, searches=1500)
QUICK: Final = Plan(articles=3000, comments=5000, rounds=1, seconds=1.5, posts=60, searches=150)

Report = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = _parser().parse_args(arguments)
    plan = QUICK if options.quick else FULL
    if options.articles:
        plan = Plan(**{**vars(plan), "articles": options.articles})
    console = Console(stderr=True)

    def report(what: str) -> None:
        console.print(what, markup=False, highlight=False, soft_wrap=True)

    try:
        figures = measure_blog(plan, report)
    except (BenchError, ServerError, OSError) as error:
        report(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        report("interrupted: all that was started has been stopped")
        return 130
    print(json.dumps(figures, ensure_ascii=False))
    return 0


def measure_blog(plan: Plan, report: Report) -> dict[str, Any]:
    """Start everything, measure, stop everything; gives what the last line prints."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="huisheng-bench-") as folder:
        report("starting MariaDB and Redis")
        with running_data(Path(folder)) as blog:
            facts = _prepare(blog, plan, report)
            report("counting queries")
            queries = run_step(
                blog,
                "-m",
                "blog_site.bench.queries",
                facts["path"],
                facts["post_path"],
                facts["sessions"][0],
            )
            bench = Bench(blog, plan, cores, facts, queries, report)
            with running_web(blog, cores.server):
                article = bench.measure_article()
                search = bench.measure_search()
                posting = bench.measure_posting()
                weights = weigh_page(f"http://127.0.0.1:{blog.web_port}{facts['path']}")
    return {
        "article_5000_comments": article,
        "post_comment": posting,
        "search_100k": search,
        "page_weight_kb": round(sum(weights.values()), 1),
        "page_weight": weights,
        "articles": plan.articles,
        "comments": plan.comments,
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": psutil.cpu_count(),
            "load_average": os.getloadavg()[1],  # of the last five minutes; ours is in it
        },
    }


def _prepare(blog: Blog, plan: Plan, report: Report) -> dict[str, Any]:
    report("making the database and collecting static files")
    run_step(blog, "manage.py", "migrate", "--verbosity", "0")
    run_step(blog, "manage.py", "collectstatic", "--no-input", "--verbosity", "0")
    report("putting the benchmarks' model into the store (made once, under var/)")
    run_step(blog, "-m", "ml.bench.store", str(blog.folder / "store"))
    report(f"writing {plan.articles} articles and {plan.comments} comments, and indexing them")
    amounts = {"articles": plan.articles, "comments": plan.comments, "users": USERS}
    options = [part for name, count in amounts.items() for part in (f"--{name}", str(count))]
    facts: dict[str, Any] = run_step(blog, "-m", "blog_site.bench.content", *options)
    return facts


@dataclass(frozen=True)
class Bench:
    """A blog that runs, and what is asked of it."""

    blog: Blog
    plan: Plan
    cores: Cores
    facts: dict[str, Any]
    queries: dict[str, int]
    report: Report

    def ask(self, requests: Sequence[bytes], **how: Any) -> Traffic:
        return run_on_core(
            self.cores.client, ask, self.blog.web_port, requests, **{"seconds": self.plan.seconds} | how
        )

    def measure_article(self) -> dict[str, Any]:
        """An article with many comments, warm, in turns with a constant: each round a ratio of its own."""
        page, constant = [write_get(self.facts["path"])], [write_get("/constant/")]
        rates: list[tuple[float, float]] = []
        alone: list[float] = []
        for number in range(1, self.plan.rounds + 1):
            self.report(f"reading the article, round {number} of {self.plan.rounds}")
            of_page = self.ask(page, clients=CLIENTS)
            rates.append((of_page.rate, self.ask(constant, clients=CLIENTS).rate))
            alone += self.ask(page, clients=1).latencies_ms
        return {
            "queries_cold": self.queries["cold"],
            "queries_warm": self.queries["warm"],
            "p50_ms": percentile(alone, 50),
            "p99_ms": percentile(alone, 99),
            "requests": len(alone),
            "rps": round(statistics.median(rate for rate, _ in rates), 1),
            "rps_constant_view": round(statistics.median(rate for _, rate in rates), 1),
            "rps_ratio": round(statistics.median(rate / constant for rate, constant in rates), 3),
        }

    def measure_search(self) -> dict[str, Any]:
        latencies: list[float] = []
        kinds: dict[str, Any] = {}
        queries: dict[str, list[str]] = self.facts["queries"]
        for kind, words in queries.items():
            self.report(f"searching: {kind}")
            requests = [write_get(self.facts["search_path"], q=query) for query in words]
            traffic = self.ask(requests, clients=1, seconds=120.0, at_most=self.plan.searches // len(queries))
            latencies += traffic.latencies_ms
            kinds[kind] = {
                "p50_ms": percentile(traffic.latencies_ms, 50),
                "p99_ms": percentile(traffic.latencies_ms, 99),
            }
        return {
            "p50_ms": percentile(latencies, 50),
            "p99_ms": percentile(latencies, 99),
            "requests": len(latencies),
            "kinds": kinds,
            "index": self.facts["index"],
        }

    def measure_posting(self) -> dict[str, Any]:
        """Post with the services and without, in turns."""
        running: list[float] = []
        stopped: list[float] = []
        for number in range(1, self.plan.rounds // 2 + 2):
            self.report(f"posting with the services running, round {number}")
            with running_services(self.blog):
                running += self._post()
            self.report(f"posting with the services stopped, round {number}")
            stopped += self._post()
        return {
            "queries": self.queries["post"],
            "p50_ms": percentile(running, 50),
            "p99_ms": percentile(running, 99),
            "p50_ms_services_down": percentile(stopped, 50),
            "p99_ms_services_down": percentile(stopped, 99),
            "p99_ratio": round(percentile(stopped, 99) / percentile(running, 99), 2),
            "posts": [len(running), len(stopped)],
        }

    def _post(self) -> list[float]:
        sessions, texts = self.facts["sessions"], self.facts["comments"]
        requests = [
            write_post(
                self.facts["post_path"],
                text,
                {self.facts["session_cookie"]: sessions[number % len(sessions)]},
                TOKEN,
            )
            for number, text in enumerate(texts)
        ]
        traffic = self.ask(requests, clients=len(sessions), seconds=60.0, status=302, at_most=self.plan.posts)
        return traffic.latencies_ms


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m blog_site.bench",
        description="Measure how fast the blog is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, in some minutes: a trial")
    parser.add_argument(
        "--articles",
        type=_count,
        metavar="N",
        help="so many to search in (default: 100,000; 3,000 where quick)",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 100 <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a number of articles from 100 to 10000000, like 20000"
        )
    return int(text)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    sys.exit(main())
