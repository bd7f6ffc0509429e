"""Settings of the training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from checkpoints.errors import ConfigError

__all__ = ["DataConfig", "SamplingSettings"]


@dataclass
class SamplingSettings:
    """Which rows an epoch has more of, and which less."""

    by: str | None = None
    """Key in the rows whose value, a text or a whole number, is the label to balance by; none leaves rows as
    they are."""

    alpha: float = 0.0
    """A label's share of an epoch goes by its number of rows to this power: 0 gives every label the same, 1
    leaves each its own."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"data.sampling.alpha = {self.alpha}: must be from 0 to 1")


@dataclass
class DataConfig:
    """Where the rows are, how to read them, and what is held out."""

    train: Path | list[Path]
    """Where the training rows are: files (JSONL, a JSON array, CSV with a header, Parquet), folders of them,
    or data sets of the hub as hf://datasets/OWNER/NAME[@REVISION][/FOLDER]."""

    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text"] = "auto"
    """Format of the rows; auto looks at the keys of each file's first row."""

    eval: Path | None = None
    """File, folder or data set of the hub with rows to evaluate on; they are never trained on: training rows
    that are the same are left out."""

    eval_fraction: float = 0.0
    """Share of the training rows to hold out for evaluation instead, 0 to below 1, about: which ones follows
    from a hash of each row and the seed."""

    max_length: int | None = None
    """Longest row in tokens, longer ones are cut on the right; none is 2048 or the model's context."""

    packing: bool = False
    """Fill each training sequence up to max_length with several rows, which do not see each other: short
    rows then cost what their tokens cost. batch_size counts these sequences."""

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """Balance of the rows by a label."""

    def __post_init__(self) -> None:
        if not self.train_files:
            raise ConfigError("data.train is empty: name at least one file")
        if not 0 <= self.eval_fraction < 1:
            raise ConfigError(f"data.eval_fraction = {self.eval_fraction}: must be from 0 to below 1")
        if self.eval is not None and self.eval_fraction > 0:
            raise ConfigError(
                f"data.eval = {self.eval} and data.eval_fraction = {self.eval_fraction} clash: "
                "evaluate on a file or on a share of the training rows, not both"
            )
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError(f"data.max_length = {self.max_length}: must be 2 or more")

    @property
    def train_files(self) -> list[Path]:
        """What ``train`` names, as a list, in the order given."""
        files = self.train if isinstance(self.train, list) else [self.train]
        return [Path(file) for file in files]
