"""Settings of ``trimaran clean-data``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from checkpoints.errors import ConfigError

__all__ = ["CleanDataConfig"]


@dataclass
class CleanDataConfig:
    """Drop rows that are too short or too long, noisy, repetitive, duplicates, or in an evaluation set.

    The input is never written to. A limit at its widest (0 for the lower ones, 1 for shares) is off.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("rows",)

    rows: Path | list[Path]
    """What to clean: files, folders or data sets of the hub, as for train."""

    output: Path
    """The directory to create: rows.jsonl (to train on), dropped.jsonl, report.json, report.md."""

    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text"] = "auto"
    """Format of the rows; auto looks at the keys of each file's first row."""

    language: str = "xx"
    """Language that spaCy finds words and stop words by (en, de, zh, ...); xx is any."""

    min_words: int = 3
    """Fewest words of a row. System turns are not counted, here and below."""

    max_words: int = 100_000
    """Most words of a row."""

    min_stop_words: int = 0
    """Fewest stop words ("the", "of", ...) of the language in a row; text of another language, or a list of
    keywords, has few."""

    scripts: list[str] = field(default_factory=list)
    """Scripts the rows are in, such as Latin,Han; none is all."""

    min_script_share: float = 0.9
    """Smallest share of a row's letters that are of these scripts."""

    max_symbol_share: float = 0.5
    """Largest share of punctuation and symbols in a row's characters, spaces left out."""

    max_duplicate_lines: float = 0.3
    """Largest share of a row's lines that are the same as an earlier one of it."""

    max_top_ngram: float = 0.5
    """Largest share of a row's characters that one sequence of 2, 3 or 4 words may take by being repeated;
    for rows of 20 words or more."""

    duplicates: bool = True
    """Drop rows that are the same as an earlier one, system turns too, but for case and white space."""

    near_duplicates: float = 0.8
    """Drop rows of which this share of 5-word sequences is the same as in an earlier one (Jaccard similarity,
    by MinHash), above 0 to 1; 0 is off. It must be so of the answers alone, too; what is asked in more than 3
    rows, an instruction, is left out; and system turns must be equal."""

    evaluation: list[Path] = field(default_factory=list)
    """Evaluation sets: files of any keys, folders or data sets of the hub. Rows that share a long sequence of
    words with one of their texts are dropped."""

    ngram: int = 13
    """How many words in a row are too many to share with an evaluation set, 8 or more."""

    max_ngram_rows: int = 10
    """A sequence that several rows of an evaluation file have (more than 5% of them), and more rows than
    this, is a phrase of the format, and is ignored. Rows that ask the same count once."""

    samples: int = 5
    """How many dropped rows of each kind the report shows."""

    overwrite: bool = False
    """Replace the output directory if it exists."""

    def __post_init__(self) -> None:
        self.output = Path(self.output)
        if not self.sources:
            raise ConfigError("rows is empty: name at least one file")
        shares = {
            "min_script_share": self.min_script_share,
            "max_symbol_share": self.max_symbol_share,
            "max_duplicate_lines": self.max_duplicate_lines,
            "max_top_ngram": self.max_top_ngram,
            "near_duplicates": self.near_duplicates,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} = {share}: must be from 0 to 1")
        counts = {
            "min_words": self.min_words,
            "min_stop_words": self.min_stop_words,
            "max_ngram_rows": self.max_ngram_rows,
            "samples": self.samples,
        }
        for name, count in counts.items():
            if count < 0:
                raise ConfigError(f"{name} = {count}: must be 0 or more")
        if self.max_words < max(1, self.min_words):
            raise ConfigError(
                f"min_words = {self.min_words} and max_words = {self.max_words} clash: no row has both"
            )
        if self.ngram < 8:
            raise ConfigError(
                f"ngram = {self.ngram}: must be 8 or more; shorter sequences are shared by chance"
            )
        if self.min_stop_words and self.language == "xx":
            raise ConfigError(
                f"min_stop_words = {self.min_stop_words} and language = xx clash: name the language"
            )

    @property
    def sources(self) -> list[Path]:
        """``rows`` as a list."""
        return [Path(path) for path in (self.rows if isinstance(self.rows, list) else [self.rows])]
