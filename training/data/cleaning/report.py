"""What was dropped and why: as JSON for programs, as Markdown to keep, as text for the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from training.data.cleaning.judge import RULES

__all__ = ["FileRead", "Report", "Sample"]

_SHOWN = 240  # characters of a sample


@dataclass(frozen=True)
class FileRead:
    """A file that was read."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Sample:
    """A row that was dropped."""

    where: str
    detail: str
    text: str


@dataclass(frozen=True)
class Report:
    """What a cleaning did."""

    files: list[FileRead]
    evaluation: list[FileRead]
    settings: dict[str, Any]
    rows: int
    kept: int
    dropped: dict[str, int]
    """Rows by rule, those of no row left out."""
    samples: dict[str, list[Sample]]
    """Some of these, by rule."""
    words: dict[str, int]
    """Words of the rows kept: total, min, median, p95, max."""
    scripts: dict[str, float]
    """Share of the letters of all rows."""
    evaluation_rows_too_short: int
    """Evaluation rows that were not looked for."""
    common_ngrams: int
    """Sequences of evaluation sets that were ignored as phrases of a format."""
    common_phrases: list[str]
    """Some of these."""
    versions: dict[str, str]

    def as_json(self) -> str:
        """Return all of it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def as_text(self) -> str:
        """Return the counts as a table of lines."""
        lines = [f"{'rows':16} {self.rows:>12,}"]
        lines += [
            f"{rule:16} {count:>12,}  {self._share(count):>6}  {RULES[rule]}"
            for rule, count in self.dropped.items()
        ]
        lines.append(f"{'kept':16} {self.kept:>12,}  {self._share(self.kept):>6}")
        return "\n".join([*lines, *self._notes()])

    def as_markdown(self) -> str:
        """Return the counts, what was read, and the samples."""
        lines = ["# Cleaned rows", "", "| | rows | share | |", "|---|---:|---:|---|"]
        lines.append(f"| read | {self.rows:,} | | |")
        lines += [
            f"| {rule} | {count:,} | {self._share(count)} | {RULES[rule]} |"
            for rule, count in self.dropped.items()
        ]
        lines.append(f"| **kept** | {self.kept:,} | {self._share(self.kept)} | |")
        scripts = ", ".join(f"{name} {share:.1%}" for name, share in self.scripts.items())
        figures = ", ".join(f"{name} {count:,}" for name, count in self.words.items())
        lines += ["", f"Words of the rows kept: {figures}. Letters of all rows: {scripts or 'none'}."]
        lines += ["", *(f"{note}." for note in self._notes())]
        for title, files in (("Read", self.files), ("Evaluation sets", self.evaluation)):
            if files:
                lines += ["", f"## {title}", ""]
                lines += [f"- {file.path}: {file.rows:,} rows, sha256 {file.sha256}" for file in files]
        for rule, samples in self.samples.items():
            lines += ["", f"## Dropped: {rule}", ""]
            lines += [f"- {one.where}: {one.detail}: `{_shown(one.text)}`" for one in samples]
        lines += ["", "## Settings", ""]
        lines += [f"- {name}: {value}" for name, value in self.settings.items()]
        return "\n".join(lines) + "\n"

    def _share(self, count: int) -> str:
        return f"{count / max(1, self.rows):.1%}"

    def _notes(self) -> list[str]:
        notes = []
        if self.evaluation_rows_too_short:
            notes.append(
                f"{self.evaluation_rows_too_short:,} evaluation rows are too short to look for: below 8 words"
            )
        if self.common_ngrams:
            notes.append(
                f"{self.common_ngrams:,} sequences were ignored: several evaluation rows have them, and rows "
                f"with more than {self.settings['max_ngram_rows']} questions, such as "
                f'"{self.common_phrases[0] if self.common_phrases else ""}"'
            )
        return notes


def _shown(text: str) -> str:
    """Return the beginning of a text in one line that does not end a Markdown code span."""
    line = " ".join(text[: 2 * _SHOWN].split()).replace("`", "'")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
