"""Validating objects as strictly as the API server does, by the schemas of one Kubernetes version."""

from __future__ import annotations

import functools
from typing import Any

import jsonschema
from jsonschema.validators import Draft202012Validator
from kubernetes_validate import utils
from referencing import Registry, Resource

VERSION = "1.36"


class Invalid(Exception):
    """The object does not fit its schema; the text names the field and what is wrong with it."""


def validate(value: dict[str, Any]) -> None:
    """Raise Invalid unless the object fits its kind's schema, with no field that is not known."""
    try:
        make_validator(value["kind"], value["apiVersion"]).validate(value)
    except jsonschema.ValidationError as error:
        raise Invalid(f"{'.'.join(map(str, error.path))}: {error.message}") from error


@functools.lru_cache
def make_validator(kind: str, api_version: str) -> Draft202012Validator:
    """kubernetes_validate reads half a megabyte of definitions for every object; this does so once for each kind."""
    version = next(
        found for found in reversed(list(utils.all_versions())) if utils.major_minor(found) == VERSION
    )
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    group, _, number = api_version.rpartition("/")
    name = f"{group.partition('.')[0]}-{number}" if group else number
    schema = utils.schema_contents(f"{folder}/{kind.lower()}-{name}.json", VERSION)
    definitions = Resource.from_contents(utils.schema_contents(f"{folder}/_definitions.json", VERSION))
    registry: Registry = definitions @ (Resource.from_contents(schema) @ Registry())
    return Draft202012Validator(schema, registry=registry)
