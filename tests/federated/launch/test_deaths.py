"""A run whose processes die again and again, and which nobody can tell from one that was left alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random

import pytest

from federated.launch.local import AGGREGATOR
from federated.protocol import RunStatus
from tests.federated.conftest import SITES, RunGround, in_round

ROUNDS = 120


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_deaths_of_the_aggregator_and_twenty_of_trainers_change_not_a_single_bit(
    ground: RunGround, request: pytest.FixtureRequest
) -> None:
    """kill -9 at random rounds and moments; whatever died is started again, and nobody can tell afterwards."""
    # On a busy machine what was killed takes long to be back: a round that went on without it would be another one.
    patient = {"deadline_seconds": 1500, "round_deadline_seconds": 600, "join_deadline_seconds": 600}
    undisturbed = ground.finish(ground.spec("run-1", rounds=ROUNDS, **patient))
    assert undisturbed.result is not None

    request.getfixturevalue("forked")
    spec = ground.spec("run-2", rounds=ROUNDS, **patient)
    random = Random(20)
    deaths = [AGGREGATOR] * 20 + [random.choice(SITES) for _ in range(20)]
    random.shuffle(deaths)
    moments = sorted(random.sample(range(1, ROUNDS - 10), len(deaths)))
    ground.start(spec)
    for moment, victim in zip(moments, deaths, strict=True):
        wait_and_heal(ground, spec.run, lambda status, moment=moment: in_round(moment, status))
        time.sleep(random.uniform(0, 0.05))  # anywhere within a round
        if victim in ground.processes(spec.run):
            ground.kill(spec.run, victim)
    status = wait_and_heal(ground, spec.run, lambda status: status.phase == "done")

    assert status.result is not None
    assert status.result["artifact"] == undisturbed.result["artifact"]
    assert [record.number for record in status.rounds] == list(range(1, ROUNDS + 1))
    for record, twin in zip(status.rounds, undisturbed.rounds, strict=True):
        assert (record.loss, record.sites) == (twin.loss, twin.sites)
    recorded = json.loads((ground.root / "runs" / spec.run / "processes.json").read_text(encoding="utf-8"))
    restarts = {process["name"]: process["restarts"] for process in recorded["processes"]}
    assert restarts[AGGREGATOR] >= 15  # one that was dead already when its turn came was not killed twice
    assert sum(restarts.values()) - restarts[AGGREGATOR] >= 15


def wait_and_heal(ground: RunGround, run: str, condition: Callable[[RunStatus], bool]) -> RunStatus:
    """Look at a run as the blog's beat does, healing it at each look."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        ground.launcher.heal(run)
        status = ground.launcher.status(run)
        if condition(status):
            return status
        assert status.phase != "failed", f"{status.reason}\n{ground.logs(run)}"
        time.sleep(0.05)
    raise AssertionError(f"{run} stands still: {status}\n{ground.logs(run)}")
