"""Command-line values that several benchmarks take."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["numbers"]


def numbers(least: int = 1, most: int | None = None) -> Callable[[str], list[int]]:
    """Return an argparse type for ``1,8,32``: whole numbers from ``least`` to ``most``, each once, sorted."""
    accepted = f"numbers of at least {least}" if most is None else f"numbers of {least} to {most}"

    def parse(text: str) -> list[int]:
        try:
            found = sorted({int(part) for part in text.strip(" ,").split(",")})
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
        if found[0] < least or (most is not None and found[-1] > most):
            raise argparse.ArgumentTypeError(f"{text!r}; accepted: {accepted}")
        return found

    return parse
