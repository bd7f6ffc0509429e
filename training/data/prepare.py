"""The data of a run: from what the config names to datasets of encoded rows."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import ConfigError
from checkpoints.manifest import Manifest, TrainingData, file_sha256
from training.data.config import DataConfig
from training.data.dataset import EncodedDataset
from training.data.encoding import RowEncoder, fit
from training.data.formats import iterate_rows
from training.data.sources import resolve_files
from training.data.split import held_out, row_hash
from training.data.token_store import StoredRow, StoreSummary, TokenStore, open_store

__all__ = ["DataFiles", "PreparedData", "find_files", "prepare_data"]

logger = logging.getLogger(__name__)

_VERSION = 2  # of how rows are encoded and stored; another one makes the stores of an older one useless


@dataclass(frozen=True)
class DataFiles:
    """The files that a config names."""

    train: list[Path]
    evaluation: list[Path]


@dataclass(frozen=True)
class PreparedData:
    """Rows ready to be trained and evaluated on."""

    train: EncodedDataset
    evaluation: EncodedDataset | None
    fingerprints: list[TrainingData]
    """Of the training files: what the manifest says of them."""
    read: StoreSummary
    """What was read from the training files, before the split."""
    evaluation_hashes: list[str]
    """sha256 of the files of ``data.eval``."""
    also_evaluated: int = 0
    """Training rows that are left out, because they are in ``data.eval`` too."""


def find_files(config: DataConfig) -> DataFiles:
    """Return the files behind ``data.train`` and ``data.eval``; data sets of the hub are downloaded.

    Raises:
        DataError: from :func:`training.data.sources.resolve_files`.
    """
    train = resolve_files(config.train_files, "train")
    return DataFiles(train, resolve_files([config.eval], "eval") if config.eval is not None else [])


def prepare_data(
    config: DataConfig,
    files: DataFiles,
    *,
    encoder: RowEncoder,
    base: Manifest,
    max_length: int,
    seed: int,
    directory: Path,
) -> PreparedData:
    """Encode the rows, once, into stores under ``directory``, and split them.

    Args:
        files: of :func:`find_files`.
        base: the base's manifest: its tokenizer, template and special tokens are part of a store's key.
        max_length: tokens of a row at most.
        seed: of the split.
        directory: where the stores are, or will be.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the split leaves nothing to train on, or all rows are in ``data.eval`` as well.
        CheckpointError: the disk is full.
    """

    def store_of(paths: list[Path], what: str, label: str | None) -> TokenStore:
        rows = _encoded(config, paths, label, encoder=encoder, max_length=max_length, seed=seed)
        key = _key(config, paths, label, base=base, max_length=max_length, seed=seed)
        return open_store(directory, key, rows, what=what, max_length=max_length)

    store = store_of(files.train, "training", config.sampling.by)
    out = held_out(store.hashes, config.eval_fraction)
    evaluation = EncodedDataset(store, np.flatnonzero(out)) if out.any() else None
    also_evaluated = 0
    if files.evaluation:
        evaluated = store_of(files.evaluation, "evaluation", None)
        evaluation = EncodedDataset(evaluated)
        out = np.isin(store.hashes, evaluated.hashes)
        also_evaluated = _report_evaluated(int(out.sum()), len(out), config)
    train = EncodedDataset(store, np.flatnonzero(~out))
    read = store.summary.rows_by_file
    fingerprints = [
        TrainingData(path=str(path), sha256=file_sha256(path), rows=read[str(path)]) for path in files.train
    ]
    hashes = [file_sha256(path) for path in files.evaluation]
    return PreparedData(train, evaluation, fingerprints, store.summary, hashes, also_evaluated)


def _report_evaluated(count: int, rows: int, config: DataConfig) -> int:
    """Say how many of ``rows`` training rows are rows of ``data.eval`` and so are left out; return ``count``.

    Raises:
        ConfigError: all of them.
    """
    if count == rows:
        raise ConfigError(
            f"all {rows} training rows are in data.eval = {config.eval} as well, and what is evaluated on is "
            "not trained on; name other rows, or hold out a share of these with data.eval_fraction"
        )
    if count:
        logger.warning(
            "%d of %d training rows are in data.eval as well; they are not trained on", count, rows
        )
    return count


def _encoded(
    config: DataConfig,
    paths: Sequence[Path],
    label: str | None,
    *,
    encoder: RowEncoder,
    max_length: int,
    seed: int,
) -> Iterator[StoredRow]:
    for path in paths:
        for row in iterate_rows(path, config.format, label=label):
            encoded, cut = fit(encoder.encode(row), max_length)
            place = int(row.where.rpartition(":")[2])
            yield StoredRow(encoded, cut, row_hash(row, seed), str(path), row.label, place)


def _key(
    config: DataConfig,
    paths: Sequence[Path],
    label: str | None,
    *,
    base: Manifest,
    max_length: int,
    seed: int,
) -> str:
    parts: dict[str, Any] = {
        "version": _VERSION,
        "files": [[str(path), file_sha256(path)] for path in paths],
        "format": config.format,
        "label": label,
        "max_length": max_length,
        "seed": seed,
        "tokenizer": base.tokenizer_sha256,
        "template": base.chat_template_sha256,
        "tokens": asdict(base.tokens),
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
