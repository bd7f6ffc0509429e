"""``trimaran doctor``: what this machine can do, check by check, each with its remedy."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "DoctorConfig", "Report", "examine"]

logger = logging.getLogger(__name__)

Status = Literal["ok", "warn", "fail"]


@dataclass
class DoctorConfig:
    """Say what this machine can do and what to install; nothing is changed.

    A failed check means that a stage cannot run here; the remedy stands beside it. Exit code 1 then.
    """

    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: ``warn`` where something is limited, ``fail`` where a stage cannot run.
        found: what is there, in words.
        remedy: what to do about it; empty where nothing need be done.
        data: the same facts for programs.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    data: dict[str, object] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All checks, in the order they are shown."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed; a warning is not a failure."""
        return all(check.status != "fail" for check in self.checks)

    def as_json(self) -> str:
        """``{"healthy": ..., "checks": [{"name", "status", "found", "remedy", "data"}]}``."""
        rows = [dataclasses.asdict(check) for check in self.checks]
        return json.dumps({"healthy": self.healthy, "checks": rows}, indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """The table, and one line of verdict."""
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        table.add_column("check", no_wrap=True)
        table.add_column("found", ratio=3, overflow="fold")
        table.add_column("remedy", ratio=2, overflow="fold")
        colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        for check in self.checks:
            mark = f"[{colours[check.status]}]{check.status}[/]"
            table.add_row(mark, check.name, _plain(check.found), _plain(check.remedy))
        terminal = Console()
        width = terminal.width if terminal.is_terminal else 120
        page = Console(file=io.StringIO(), width=width, force_terminal=terminal.is_terminal)
        page.print(table)
        failed = [check.name for check in self.checks if check.status == "fail"]
        verdict = f"failed: {', '.join(failed)}" if failed else "everything Trimaran needs here is in place"
        warned = sum(check.status == "warn" for check in self.checks)
        page.print(f"\n{verdict}" + (f" ({warned} warnings)" if warned else ""))
        assert isinstance(page.file, io.StringIO)
        return "\n".join(line.rstrip() for line in page.file.getvalue().splitlines())


def examine(config: DoctorConfig) -> Report:
    """Run every check. A check that breaks is a warning that says so, not the end of the report."""
    from trimaran.doctor_machine import MACHINE_CHECKS
    from trimaran.doctor_software import SOFTWARE_CHECKS

    checks: list[Check] = []
    for name, examine_one in {**MACHINE_CHECKS, **SOFTWARE_CHECKS}.items():
        try:
            checks.append(examine_one(name))
        except Exception as error:
            logger.debug("check %s broke", name, exc_info=error)
            checks.append(Check(name, "warn", f"could not be examined: {type(error).__name__}: {error}"))
    return Report(tuple(checks))


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
