"""``trimaran clean-data``: reads the rows twice, once to judge and once to write."""

from __future__ import annotations

import hashlib
import heapq
import importlib.metadata
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from checkpoints.atomic import atomic_directory
from checkpoints.errors import ConfigError, DataError
from checkpoints.manifest import file_sha256
from checkpoints.progress import progress
from training.data.cleaning.config import CleanDataConfig
from training.data.cleaning.decontamination import EvaluationNgrams, texts_of
from training.data.cleaning.judge import RULES, Judge
from training.data.cleaning.quality import known_scripts
from training.data.cleaning.report import FileRead, Report, Sample
from training.data.cleaning.row_text import text_of, words_of
from training.data.cleaning.words import WordSplitter
from training.data.files import read_records
from training.data.formats import Format, Row, detect_format, parse_row
from training.data.sources import resolve_files

__all__ = ["CleanedData", "clean_data"]

_BATCH = 256  # rows split into words at a time
_FREE = {"rows", "output", "evaluation", "overwrite"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class CleanedData:
    """The directory that was made, and what its report says."""

    directory: Path
    report: Report

    @property
    def rows(self) -> Path:
        """The rows to train on."""
        return self.directory / "rows.jsonl"


def clean_data(config: CleanDataConfig) -> CleanedData:
    """Judge every row, and write those kept, those dropped and the report, all or nothing.

    The same rows and settings give the same files.

    Raises:
        ConfigError: the output would replace an input, a script or a language is unknown, or a package of the
            extra ``data`` is missing.
        DataError: a file cannot be read, or no row is left.
        CheckpointError: the output exists, or cannot be written.
    """
    files = resolve_files(config.sources, "train")
    evaluation = resolve_files(config.evaluation, "decontamination")
    _check_output(config.output, [*files, *evaluation])
    _check_scripts(config.scripts)
    splitter = WordSplitter(config.language)
    with (
        atomic_directory(config.output, replace=config.overwrite) as directory,
        tempfile.TemporaryFile(dir=directory) as scratch,
    ):
        ngrams = EvaluationNgrams(config.ngram)
        evaluation_rows = _add_evaluation(ngrams, evaluation, splitter)
        judge = Judge(config, ngrams, scratch)
        rows = _judge(judge, files, config, splitter)
        if len(judge.dropped) == len(judge.words):
            counts = Counter(broken.rule for broken in judge.dropped.values())
            raise DataError(
                f"all {len(judge.words)} rows were dropped: "
                + ", ".join(f"{rule} {count}" for rule, count in counts.most_common())
            )
        samples = _write(directory, judge, files, config.samples)
        report = Report(
            files=_files(files, rows),
            evaluation=_files(evaluation, evaluation_rows),
            settings=_settings(config),
            rows=len(judge.words),
            kept=len(judge.words) - len(judge.dropped),
            dropped=_counts(judge),
            samples=samples,
            words=_quantiles([n for row, n in enumerate(judge.words) if row not in judge.dropped]),
            scripts=_shares(judge.scripts),
            evaluation_rows_too_short=ngrams.too_short,
            common_ngrams=len(judge.phrases),
            common_phrases=judge.phrases[: config.samples],
            versions=_versions(config),
        )
        (directory / "report.json").write_text(report.as_json(), encoding="utf-8")
        (directory / "report.md").write_text(report.as_markdown(), encoding="utf-8")
    return CleanedData(config.output, report)


def _judge(
    judge: Judge, files: Sequence[Path], config: CleanDataConfig, splitter: WordSplitter
) -> Counter[str]:
    """Show the judge every row; return how many each file has."""
    read: Counter[str] = Counter()
    with progress() as bar:
        task = bar.add_task("judge", total=None, note="")
        for batch in _batches(_rows(files, config.format), _BATCH):
            texts = [text_of(row) if isinstance(row, Row) else None for _, row in batch]
            parts = [part for text in texts if text for _, part in text.parts]
            split = iter(list(splitter.split(parts)))
            for (where, row), text in zip(batch, texts, strict=True):
                read[where.rpartition(":")[0]] += 1
                if text is not None:
                    judge.see(where, text, words_of(text, list(islice(split, len(text.parts)))))
                else:
                    judge.see_unusable(where, str(row))
            bar.update(task, completed=len(judge.words), note=f"{len(judge.dropped):,} dropped")
    judge.finish()
    return read


def _rows(files: Iterable[Path], format: Format | Literal["auto"]) -> Iterator[tuple[str, Row | str]]:
    """Yield (where, row), or in its place what is wrong with the record."""
    for path in files:
        of_file = format
        for where, record in read_records(path):
            if of_file == "auto":
                of_file = detect_format(record, where)
            try:
                yield where, parse_row(record, of_file, where)
            except DataError as error:
                yield where, str(error).removeprefix(f"{where}: ")


def _add_evaluation(ngrams: EvaluationNgrams, files: Sequence[Path], splitter: WordSplitter) -> Counter[str]:
    read: Counter[str] = Counter()
    for path in files:
        for where, record in read_records(path):
            read[str(path)] += 1
            ngrams.add([split.words for split in splitter.split(list(texts_of(record)))], where)
    return read


def _write(directory: Path, judge: Judge, files: Sequence[Path], samples: int) -> dict[str, list[Sample]]:
    """Write the rows kept and those dropped; return some of the latter by rule."""
    chosen = _chosen(judge, samples)
    found: dict[str, list[Sample]] = {rule: [] for rule in _counts(judge)}
    row = 0
    with (
        (directory / "rows.jsonl").open("w", encoding="utf-8") as kept,
        (directory / "dropped.jsonl").open("w", encoding="utf-8") as dropped,
    ):
        for path in files:
            for where, record in read_records(path):
                broken = judge.dropped.get(row)
                if broken is None:
                    kept.write(_line(record))
                else:
                    dropped.write(
                        _line({"where": where, "rule": broken.rule, "detail": broken.detail, "row": record})
                    )
                    if row in chosen:
                        text = "\n".join(texts_of(record)) or _line(record)
                        text = text[:1000].encode("utf-8", "replace").decode("utf-8")
                        found[broken.rule].append(Sample(where, broken.detail, text))
                row += 1
    return found


def _line(record: dict[str, Any]) -> str:
    # What JSON has no type for (a date, bytes of a Parquet file) is no text to train on; it is kept readable.
    line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
    if not line.isascii() and _has_surrogate(line):
        return json.dumps(record, default=str) + "\n"
    return line


def _has_surrogate(text: str) -> bool:
    """Whether half of a surrogate pair is in it, which UTF-8 cannot hold and JSON's escapes can."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _chosen(judge: Judge, samples: int) -> set[int]:
    """Choose rows to show of each rule: from all over the files, and the same each time."""
    by_rule: dict[str, list[int]] = {}
    for row, broken in judge.dropped.items():
        by_rule.setdefault(broken.rule, []).append(row)
    return {row for rows in by_rule.values() for row in heapq.nsmallest(samples, rows, key=_scattered)}


def _scattered(row: int) -> bytes:
    return hashlib.blake2b(str(row).encode(), digest_size=8).digest()


def _counts(judge: Judge) -> dict[str, int]:
    counts = Counter(broken.rule for broken in judge.dropped.values())
    return {rule: counts[rule] for rule in RULES if counts[rule]}


def _files(files: Sequence[Path], read: Counter[str]) -> list[FileRead]:
    return [FileRead(str(path), file_sha256(path), read[str(path)]) for path in files]


def _settings(config: CleanDataConfig) -> dict[str, Any]:
    """Return what the result depends on, as JSON values; the files are named by their hashes."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return {name: value for name, value in settings.items() if name not in _FREE}


def _versions(config: CleanDataConfig) -> dict[str, str]:
    names = ["spacy", "datasketch"] if config.near_duplicates else ["spacy"]
    return {name: importlib.metadata.version(name) for name in names}


def _quantiles(words: list[int]) -> dict[str, int]:
    words.sort()
    last = len(words) - 1
    places = {"min": 0, "median": last // 2, "p95": last * 95 // 100, "max": last}
    return {"total": sum(words), **{name: words[place] for name, place in places.items()}}


def _shares(scripts: Counter[str]) -> dict[str, float]:
    letters = sum(scripts.values())
    ordered = sorted(scripts.items(), key=lambda item: (-item[1], item[0]))
    return {name: round(count / letters, 6) for name, count in ordered}


def _check_output(output: Path, files: Sequence[Path]) -> None:
    """Refuse an output that would replace what is read."""
    target = output.resolve()
    for path in files:
        if path.resolve() == target or target in path.resolve().parents:
            raise ConfigError(f"output = {output} holds {path}, which is read; choose another directory")


def _check_scripts(scripts: Sequence[str]) -> None:
    if not scripts:
        return
    known = known_scripts()
    folded = {name.casefold() for name in known}
    for name in scripts:
        if name.casefold() not in folded:
            raise ConfigError(f"scripts has {name!r}; there is: {', '.join(sorted(known))}")


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
