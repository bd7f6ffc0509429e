"""Data engineering on real rows: how fast they are cleaned, in what memory, what packing saves.

The rows are a file of yours, such as GSM8K's ``train.jsonl`` (a question and an answer each) or one of any
form that is trained on. The evaluation set is the demo's, 60 rows of GSM8K's test split, and HumanEval: how
many of the rows have text of it is counted, and it is slipped in with twelve answers to each question, to see
whether all of these are found.

  python -m benchmarks.data gsm8k/train.jsonl         # some 2 minutes on an idle core

Results go to benchmarks/results/data.{json,md}. The last line printed is one JSON object of the figures. Each
measurement has a process of its own, and its memory is what that process came to need on top of its start.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data_report import render_data
from benchmarks.machine import machine_facts
from benchmarks.preparation import demo_checkpoint, tell
from checkpoints.errors import TrimaranError
from checkpoints.manifest import file_sha256

__all__ = ["main"]

_LENGTH = 1024
_BATCH = 8
_ANSWERS = 12  # more than a sequence may have rows before it can be a phrase
_FEW = 0.1
_NEAR = 0.8
_STORED = 10_000_000  # tokens

_Chat = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="data-") as folder:
            results = _measure(options.rows, options.checkpoint or demo_checkpoint(), Path(folder))
    except TrimaranError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "data"
    target.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = render_data(results)
    target.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    print(json.dumps({name: results[name] for name in ("cleaning", "contamination", "packing", "store")}))
    return 0


def _measure(source: Path, checkpoint: Path, folder: Path) -> dict[str, Any]:
    rows = list(_chats(source))
    files = {"all": folder / "rows.jsonl", "few": folder / "few.jsonl"}
    _write(files["all"], rows)
    _write(files["few"], rows[: int(_FEW * len(rows))])
    evaluation, questions = _evaluation(folder)

    found = {
        (part, near): _alone(_clean, path, folder / f"{part}-{near}", evaluation, near)
        for part, path in files.items()
        for near in (_NEAR, 0.0)
    }
    all_of_it, digests = found["all", _NEAR], found["all", 0.0]
    tell(f"cleaned {len(rows)} rows in {all_of_it['seconds']:.1f} s")
    slipped = [
        {"messages": [*chat["messages"][:1], {"role": "assistant", "content": answer}]}
        for chat in questions
        for answer in (chat["messages"][1]["content"], *(f"It is {number}." for number in range(1, _ANSWERS)))
    ]
    mixed = folder / "mixed.jsonl"
    _write(mixed, [*rows, *slipped])
    caught = _alone(_clean, mixed, folder / "mixed", evaluation, 0.0)
    lengths = _alone(_lengths, files["all"], checkpoint)
    tell(f"encoded in {lengths['seconds']:.1f} s")
    return {
        "machine": machine_facts(),
        "source": {"name": source.name, "sha256": file_sha256(source), "rows": len(rows)},
        "cleaning": {
            "words": all_of_it["words"],
            "rows_per_second": round(len(rows) / all_of_it["seconds"], 1),
            "kept": all_of_it["kept"],
            "dropped": all_of_it["dropped"],
            "bytes_per_row_kept": _per_row(found["few", _NEAR], all_of_it),
            "bytes_per_row_without_near_duplicates": _per_row(found["few", 0.0], digests),
        },
        "contamination": {
            "evaluation_rows": digests["evaluation_rows"],
            "among_the_rows": digests["dropped"].get("contaminated", 0),
            "slipped_in": len(slipped),
            "found": caught["dropped"].get("contaminated", 0) - digests["dropped"].get("contaminated", 0),
        },
        "packing": {
            "length": _LENGTH,
            "batch_size": _BATCH,
            "rows_encoded_per_second": round(len(rows) / lengths["seconds"], 1),
            **lengths["packing"],
        },
        "store": _alone(_store, folder / "store"),
    }


def _per_row(few: dict[str, Any], many: dict[str, Any]) -> int:
    """Return the bytes that each further row kept takes."""
    return round((many["memory"] - few["memory"]) / (many["kept"] - few["kept"]))


def _chats(source: Path) -> Iterator[_Chat]:
    """Yield the rows of a file, questions and answers as chats."""
    from training.data.files import read_records

    for _, record in read_records(source):
        if record.keys() >= {"question", "answer"}:
            yield _chat(record["question"], record["answer"])
        else:
            yield record


def _chat(question: str, answer: str) -> _Chat:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _evaluation(folder: Path) -> tuple[list[Path], list[_Chat]]:
    """Return the files of the evaluation sets, and the first one's rows."""
    from trimaran.demo_data import human_eval_problems, write_demo_data

    demo = write_demo_data(folder / "demo")
    code = folder / "human-eval.jsonl"
    _write(code, human_eval_problems())
    lines = [line for path in (demo.train, demo.evaluation) for line in path.read_text("utf-8").splitlines()]
    return [demo.train, demo.evaluation, code], [json.loads(line) for line in lines]


def _write(path: Path, rows: Sequence[_Chat]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _alone(measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run ``measure`` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _clean(rows: Path, output: Path, evaluation: list[Path], near: float) -> dict[str, Any]:
    import spacy

    from training.data.cleaning.config import CleanDataConfig
    from training.data.cleaning.run import clean_data

    # What packages take is not counted.
    importlib.import_module("datasketch")
    spacy.blank("en")
    before, began = _memory("VmHWM"), time.perf_counter()
    report = clean_data(
        CleanDataConfig(rows=rows, output=output, language="en", near_duplicates=near, evaluation=evaluation)
    ).report
    return {
        "seconds": time.perf_counter() - began,
        "memory": _memory("VmHWM") - before,
        "kept": report.kept,
        "dropped": report.dropped,
        "words": report.words["total"],
        "evaluation_rows": sum(one.rows for one in report.evaluation),
    }


def _lengths(rows: Path, checkpoint: Path) -> dict[str, Any]:
    import numpy as np

    from checkpoints.prompt import PromptEncoder
    from training.data.encoding import RowEncoder
    from training.data.formats import iterate_rows
    from training.data.packing import pack_lengths
    from training.data.summary import packing_figures

    encoder = PromptEncoder.from_checkpoint(checkpoint)
    encode = RowEncoder(encoder, encoder.tokens)
    began = time.perf_counter()
    found = [min(_LENGTH, len(encode.encode(row).input_ids)) for row in iterate_rows(rows)]
    seconds = time.perf_counter() - began
    packs = pack_lengths(found, _LENGTH)
    figures = packing_figures(
        np.array(found, dtype=np.int64), packs=len(packs), length=_LENGTH, batch_size=_BATCH, seed=0
    )
    return {"seconds": seconds, "packing": figures}


def _store(root: Path) -> dict[str, Any]:
    from training.data.encoding import Encoded
    from training.data.token_store import StoredRow, open_store

    size = 200

    def made() -> Iterator[StoredRow]:
        for number in range(_STORED // size):
            ids = list(range(number % 40_000, number % 40_000 + size))
            yield StoredRow(Encoded(ids, ids), False, number, "rows.jsonl")

    before, began = _memory("RssAnon"), time.perf_counter()
    store = open_store(root, "benchmark", made(), what="training", max_length=size)
    read = sum(len(store[index].input_ids) for index in range(len(store)))
    assert read == _STORED
    return {
        "tokens": read,
        "rows": len(store),
        "seconds": round(time.perf_counter() - began, 1),
        "memory": _memory("RssAnon") - before,
    }


def _memory(name: str) -> int:
    """Return bytes of this process: ``VmHWM``, the most it had; ``RssAnon``, what it has but mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "rows",
        type=Path,
        metavar="ROWS",
        help="file of rows; of what a manifest is made, its name and hash are kept",
    )
    add("--checkpoint", type=Path, help="whose tokenizer encodes (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
