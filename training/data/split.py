"""Which rows are trained on and which are held out for evaluation."""

from __future__ import annotations

import random

from checkpoints.errors import ConfigError
from training.data.config import DataConfig
from training.data.formats import Row, read_rows

__all__ = ["load_split"]


def load_split(config: DataConfig, *, seed: int) -> tuple[list[Row], list[Row]]:
    """Return ``(train rows, evaluation rows)``; the second is empty when no evaluation is asked for.

    With ``eval_fraction`` the held-out rows are a random choice that depends on ``seed`` and the number of
    rows alone, at least one row; both parts keep the order of the files.

    Raises:
        ConfigError: ``eval_fraction`` leaves no row to train on.
        DataError: from :func:`training.data.formats.read_rows`.
    """
    rows = [row for path in config.train_files for row in read_rows(path, config.format)]
    if config.eval is not None:
        return rows, read_rows(config.eval, config.format)
    if config.eval_fraction == 0:
        return rows, []
    count = max(1, round(config.eval_fraction * len(rows)))
    if count >= len(rows):
        raise ConfigError(
            f"data.eval_fraction = {config.eval_fraction} of {len(rows)} row(s) leaves nothing to train on; "
            "lower it or name a file with data.eval"
        )
    held_out = set(random.Random(seed).sample(range(len(rows)), count))
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [rows[index] for index in sorted(held_out)]
