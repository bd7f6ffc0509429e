"""Make the chart's README.md, and the descriptions in values.schema.json, from the comments in values.yaml.

``python deploy/helm/render_readme.py`` writes both; ``--check`` writes nothing and exits 1 where one differs.
The types, ranges and patterns in the schema are written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent / "trimaran"
KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z][A-Za-z0-9]*):(?P<rest>.*)$")
COMMENT = re.compile(r"^ *# ?(?P<text>.*)$")


@dataclass(frozen=True)
class Value:
    """One key of values.yaml."""

    path: tuple[str, ...]
    """Keys from the top."""
    comment: str
    """What stands above it; empty where nothing does."""
    default: Any
    section: bool
    """Whether it is a mapping with documented keys of its own."""


def read_values(text: str) -> list[Value]:
    """Return every key of a values.yaml with its comment, in the order of the file.

    Keys in a list, or in a mapping that stands for a Kubernetes object, are part of its default.
    """
    data = yaml.safe_load(text)
    values: list[Value] = []
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    skip_deeper_than: int | None = None
    for line in text.splitlines():
        if found := COMMENT.match(line):
            comment.append(found["text"].strip())
            continue
        found = KEY.match(line)
        indent = len(line) - len(line.lstrip(" "))
        if skip_deeper_than is not None and (not line.strip() or indent > skip_deeper_than):
            continue
        skip_deeper_than = None
        if found is None:
            comment = []
            continue
        while stack and stack[-1][0] >= indent:
            stack.pop()
        path = (*(name for _, name in stack), found["name"])
        default = data
        for name in path:
            default = default[name]
        section = isinstance(default, dict) and bool(default) and path[-1] not in ("requests", "limits")
        values.append(Value(path, " ".join(comment), default, section))
        comment = []
        if section:
            stack.append((indent, found["name"]))
        else:
            skip_deeper_than = indent
    return values


def render_readme(values: list[Value], chart: dict[str, Any], guide: str) -> str:
    """Return the README: the hand-written guide, then a table per section of values."""
    lines = [
        f"# Chart {chart['name']}",
        "",
        "<!-- Made by deploy/helm/render_readme.py from values.yaml and README.guide.md: edit those. -->",
        "",
        f"Version {chart['version']}, for Trimaran {chart['appVersion']}. {chart['description']}",
        "",
        guide.strip(),
        "",
        "## Values",
        "",
        "`values.schema.json` refuses what is not listed here.",
        "",
    ]
    head = ["| value | default | meaning |", "|---|---|---|"]
    general = [value for value in values if len(value.path) == 1 and not value.section]
    lines += ["### General", "", *head, *map(_row, general)]
    for value in values:
        if len(value.path) == 1 and value.section:
            lines += ["", f"### {value.path[0]}", "", *([value.comment, ""] if value.comment else []), *head]
        elif len(value.path) > 1 and (value.comment or not value.section):
            lines.append(_row(value))
    return "\n".join(lines) + "\n"


def _row(value: Value) -> str:
    default = "" if value.section else f"`{json.dumps(value.default, ensure_ascii=False)}`"
    cells = (f"`{'.'.join(value.path)}`", default, value.comment)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def describe_schema(schema: dict[str, Any], values: list[Value]) -> dict[str, Any]:
    """Return the schema with each property's description taken from values.yaml."""
    described: dict[str, Any] = json.loads(json.dumps(schema))
    for value in values:
        node = described
        for name in value.path:
            node = node.get("properties", {}).get(name, {})
        if node and value.comment:
            node["description"] = value.comment
    return described


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where a file differs")
    check: bool = parser.parse_args().check
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    guide = (CHART / "README.guide.md").read_text(encoding="utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    wanted = {
        CHART / "README.md": render_readme(values, chart, guide),
        CHART / "values.schema.json": json.dumps(describe_schema(schema, values), indent=2) + "\n",
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path} is not what values.yaml says; run python {Path(__file__).name}", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"written: {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
