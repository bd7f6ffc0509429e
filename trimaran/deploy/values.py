"""A values file for the chart: what differs from its defaults, the reason above each line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Value", "render_values"]


@dataclass(frozen=True)
class Value:
    """One value."""

    path: tuple[str, ...]
    """Keys from the top."""
    value: str | int
    reason: str


def render_values(values: Iterable[Value], defaults: dict[str, Any]) -> str:
    """Return YAML of all ``values`` that are not the default already; give those of one section in a row."""
    lines: list[str] = []
    above: tuple[str, ...] = ()
    for one in values:
        if _find(defaults, one.path) == one.value:
            continue
        parents = one.path[:-1]
        shared = 0
        while shared < min(len(parents), len(above)) and parents[shared] == above[shared]:
            shared += 1
        for depth in range(shared, len(parents)):
            lines.append(f"{'  ' * depth}{parents[depth]}:")
        indent = "  " * len(parents)
        # A JSON scalar is a YAML scalar.
        lines += [
            f"{indent}# {one.reason}",
            f"{indent}{one.path[-1]}: {json.dumps(one.value, ensure_ascii=False)}",
        ]
        above = parents
    return "\n".join(lines) + "\n" if lines else "{}\n"


def _find(tree: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = tree
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found
