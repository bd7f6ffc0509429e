"""Which engine serves what, as the tables of ``docs/engines.md``: ``python -m serving.capabilities``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from serving.engine.config import KV_DTYPES, WEIGHTS
from serving.engine.registry import ENGINES, find_exporter

__all__ = ["render_capabilities", "replace_tables"]

BEGIN = "<!-- capabilities: made by python -m serving.capabilities -->"
END = "<!-- end of capabilities -->"

_CHECKPOINTS = {
    "base, full, merged LoRA or QLoRA": ("torch", "openvino", "onnx"),
    "NF4 (`trimaran quantize`)": ("torch",),
    "bottleneck adapter, on its base": ("torch",),
    "LoRA adapter, not merged": (),
}
"""What training leaves -> the engines that take it; the tests hold it against the exporters."""


def render_capabilities() -> str:
    """Return the tables as Markdown."""
    names = list(ENGINES)
    exporters = {name: find_exporter(name) for name in names}
    architectures = sorted(set().union(*(one.architectures for one in exporters.values())))

    def rows(values: Iterable[str], attribute: str) -> Iterable[tuple[str, list[str]]]:
        for value in values:
            yield f"`{value}`", [name for name in names if value in getattr(exporters[name], attribute)]

    tables = [
        _table("checkpoint", names, _CHECKPOINTS.items()),
        _table("weights", names, rows(WEIGHTS, "weights")),
        _table("KV cache", names, rows(KV_DTYPES, "kv_dtypes")),
        _methods_table(architectures, {name: one.architectures for name, one in exporters.items()}),
    ]
    return "\n\n".join(tables)


def replace_tables(text: str) -> str:
    """Return ``text`` with the tables between the two marks made new."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render_capabilities()}\n\n{END}{after}"


def _methods_table(architectures: Iterable[str], shown: Mapping[str, frozenset[str]]) -> str:
    """Return the table of architectures by checkpoints, with the engines that serve both in its cells.

    Args:
        architectures: of the rows.
        shown: engine -> the architectures that the tests hold equal to ``generate``.
    """
    kinds = {label: engines for label, engines in _CHECKPOINTS.items() if engines}
    lines = [
        f"| architecture, shown equal to `generate` | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
    ]
    for name in architectures:
        cells = [[engine for engine in engines if name in shown[engine]] for engines in kinds.values()]
        lines.append(f"| `{name}` | {' | '.join(', '.join(cell) or '-' for cell in cells)} |")
    return "\n".join(lines)


def _table(title: str, names: list[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    lines = [f"| {title} | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for label, taken in rows:
        cells = ["yes" if name in set(taken) else "-" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the tables of the Markdown file named on the command line new."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/engines.md")
    path.write_text(replace_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
