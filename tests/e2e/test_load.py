"""`make e2e-load`: how many answers a second the inference service gives at 1, 2 and 4 replicas, and a plot of it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import client_pods
from tests.e2e.cluster import ClusterError, NotYet, say, wait_until
from tests.e2e.system import BLOG, PATIENCE, System

REPLICAS = (1, 2, 4)
SECONDS = float(os.environ.get("E2E_LOAD_SECONDS", "20"))
CLIENTS = int(os.environ.get("E2E_LOAD_CLIENTS", "2"))  # pods that ask
CONNECTIONS = 16  # of each
PROGRAM = (Path(__file__).parent / "inside" / "ask_steadily.py").read_text(encoding="utf-8")
RESULTS = Path("var/e2e")

pytestmark = pytest.mark.skipif(os.environ.get("E2E_LOAD") != "1", reason="a load test: make e2e-load")


@pytest.fixture
def serving(system: System) -> System:
    """A model is being served; a short run makes one where there is none."""
    if not system.status()["champion"]:
        system.manage("seed_demo", "--quiet", seconds=600)
        system.manage("import_samples", "--bootstrap", seconds=600)
        system.wait_for_run(system.trigger("--sites", "3", "--rounds", "20"), "promoted", seconds=2400)
    system.wait_for_deployment("inference", 900)
    return system


@pytest.fixture
def scaled(serving: System) -> Iterator[System]:
    """The service, whose number of replicas a test may hold fast; afterwards the autoscaler has its bounds back."""
    scaler = serving.cluster.get("hpa", BLOG, "inference")
    assert scaler is not None
    yield serving
    bounds = {name: scaler["spec"][name] for name in ("minReplicas", "maxReplicas")}
    patch_scaler(serving, bounds)


@pytest.fixture
def clients(serving: System) -> Iterator[list[str]]:
    """Pods that may ask the inference service, and wait to be told to; gives their names."""
    names = [f"load-{number}" for number in range(CLIENTS)]
    with client_pods(serving, names, ["python", "-c", "import time; time.sleep(7200)"]) as running:
        yield running


def patch_scaler(system: System, bounds: dict[str, int]) -> None:
    system.cluster.kubectl(
        "patch", "hpa", "inference", "-n", BLOG, "--type=merge", "-p", json.dumps({"spec": bounds})
    )


def hold(system: System, replicas: int) -> None:
    """Have so many replicas, whatever the autoscaler would do, and wait until they are ready."""
    patch_scaler(system, {"minReplicas": replicas, "maxReplicas": replicas})
    system.cluster.kubectl("scale", "deployment", "inference", "-n", BLOG, f"--replicas={replicas}")

    def look() -> bool:
        found = system.wait_for_deployment("inference", 900)
        if found["spec"].get("replicas") != replicas:
            raise NotYet(f"{found['spec'].get('replicas')} replicas wanted")
        return True

    wait_until(f"{replicas} replicas", look, 900 * PATIENCE)


def ask_from(system: System, pods: list[str]) -> list[dict[str, Any]]:
    """Let all client pods ask at once; gives what each tells."""
    told: list[dict[str, Any]] = []
    failures: list[str] = []

    def ask(pod: str) -> None:
        arguments = ["python", "-", f"inference.{BLOG}.svc", "8100", str(CONNECTIONS), str(SECONDS)]
        try:
            told.append(
                json.loads(system.cluster.exec(BLOG, pod, *arguments, given=PROGRAM, seconds=SECONDS + 60))
            )
        except (ClusterError, ValueError) as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask, args=(pod,)) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    return told


def test_throughput_at_several_numbers_of_replicas(scaled: System, clients: list[str]) -> None:
    figures = {}
    for replicas in REPLICAS:
        hold(scaled, replicas)
        ask_from(scaled, clients)  # connections, caches and clocks are warm afterwards
        told = ask_from(scaled, clients)
        troubles = {name: count for one in told for name, count in one["troubles"].items()}
        figures[replicas] = {
            "answers_per_s": round(sum(one["answers"] / one["seconds"] for one in told), 1),
            "p50_ms": max(one["p50_ms"] for one in told),
            "p99_ms": max(one["p99_ms"] for one in told),
            "troubles": troubles,
        }
        say(f"{replicas} replicas: {figures[replicas]}")
        # Refusals under load (429) are the service's promise; anything else is not.
        assert set(troubles) <= {"429"}, troubles
    RESULTS.mkdir(parents=True, exist_ok=True)
    draw(figures, RESULTS / "load.png")
    nodes = json.loads(scaled.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    cores = [node["status"]["allocatable"]["cpu"] for node in nodes]
    report = {
        "replicas": figures,
        "clients": CLIENTS,
        "connections": CLIENTS * CONNECTIONS,
        "node_cpus": cores,
    }
    (RESULTS / "load.json").write_text(json.dumps(report), encoding="utf-8")
    print(json.dumps(report))
    say(f"plot: {RESULTS / 'load.png'}")


def draw(figures: dict[int, dict[str, Any]], path: Path) -> None:
    """Plot throughput and latency against replicas."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(6, 6), layout="constrained")
    replicas = list(figures)
    above.plot(replicas, [row["answers_per_s"] for row in figures.values()], marker="o", label="measured")
    first = figures[replicas[0]]["answers_per_s"] / replicas[0]
    above.plot(replicas, [first * number for number in replicas], linestyle=":", label="in proportion")
    above.set_ylabel("answers a second")
    above.set_ylim(bottom=0)
    above.legend()
    for name in ("p50_ms", "p99_ms"):
        below.plot(
            replicas, [row[name] for row in figures.values()], marker="o", label=name.removesuffix("_ms")
        )
    below.set_ylabel("milliseconds")
    below.set_xlabel("replicas")
    below.set_xticks(replicas)
    below.set_ylim(bottom=0)
    below.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
