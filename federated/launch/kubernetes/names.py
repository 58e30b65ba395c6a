"""Names and labels of a run's objects: the same ones whenever they are asked for, whatever a site is called."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final

from federated.launch import LauncherError
from federated.protocol import RunSpec

NAME_LABEL: Final = "app.kubernetes.io/name"
PART_LABEL: Final = "app.kubernetes.io/part-of"
MANAGER_LABEL: Final = "app.kubernetes.io/managed-by"
RUN_LABEL: Final = "huisheng.io/run"
SITE_LABEL: Final = "huisheng.io/site"
SITE_ANNOTATION: Final = "huisheng.io/site-name"  # in full, as the blog knows it
SPEC_ANNOTATION: Final = "huisheng.io/spec"  # of the aggregator's Job: the run's specification
DIGEST_ANNOTATION: Final = "huisheng.io/spec-digest"
PART_OF: Final = "huisheng"
MANAGER: Final = "huisheng-launcher"
AGGREGATOR, TRAINER = "aggregator", "trainer"
# A Job's pods are named after it, with "-" and five letters, and their name must fit a host name of 63 characters.
_RUN: Final = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")
_SITE_LENGTH: Final = 24


def check_run(run: str) -> str:
    """Give the run's name where objects can be named after it. Raises LauncherError."""
    if not _RUN.fullmatch(run):
        raise LauncherError(
            f"{run!r} cannot name objects of a cluster: it must match {_RUN.pattern}", permanent=True
        )
    return run


def site_name(site: str) -> str:
    """A site's name as labels and names of objects may hold it: what is safe of it, and a hash of all of it."""
    safe = re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-")[:_SITE_LENGTH].strip("-")
    return "-".join(filter(None, [safe, hashlib.sha256(site.encode()).hexdigest()[:8]]))


def aggregator_name(run: str) -> str:
    return f"{run}-{AGGREGATOR}"


def trainer_name(run: str, site: str) -> str:
    return f"{run}-{site_name(site)}"


def run_labels(run: str) -> dict[str, str]:
    return {PART_LABEL: PART_OF, MANAGER_LABEL: MANAGER, RUN_LABEL: run}


def aggregator_labels(run: str) -> dict[str, str]:
    return {NAME_LABEL: AGGREGATOR, **run_labels(run)}


def trainer_labels(run: str, site: str) -> dict[str, str]:
    return {NAME_LABEL: TRAINER, **run_labels(run), SITE_LABEL: site_name(site)}


def run_selector(run: str) -> str:
    return f"{PART_LABEL}={PART_OF},{RUN_LABEL}={run}"


ANY_RUN: Final = f"{PART_LABEL}={PART_OF},{RUN_LABEL}"


def spec_digest(spec: RunSpec) -> str:
    """What tells a run from one of the same name, such as that of a database that was since restored or made anew.

    Only of what stays as it is when a run that failed goes on after the settings were changed.
    """
    fixed = [
        spec.run,
        spec.planned_at,
        spec.heldout_digest,
        spec.champion_digest,
        {site: [part.shard_digest, part.validation_digest] for site, part in spec.sites.items()},
        dict(spec.training),
        spec.seed,
    ]
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def folder_name(run: str, digest: str) -> str:
    """The run's name wherever something of it outlives its objects: its journal, and its diary in the store."""
    return f"{run}-{digest[:10]}"
