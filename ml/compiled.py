"""Loops over memory that are compiled to machine code, by Numba, when they are first called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run as machine code, without Python's lock.

    It is compiled for the kinds of arguments that it gets, in about a second, and what was compiled is kept beside
    its source, or where NUMBA_CACHE_DIR says. A process that calls no such function does not load Numba.
    """

    @functools.cache
    def compile_now() -> Callable[P, R]:
        import numba

        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            made: Callable[P, R] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # there is no folder to keep it in
            made = numba.njit(**options)(function)
        return made

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        return compile_now()(*arguments, **named)

    return call
