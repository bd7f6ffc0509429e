"""A repository with a tiny Python model, and a sealed tiny checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints.manifest import BaseModel, Manifest, TokenIds, seal

_CONFIG = """
backend: "python"
max_batch_size: 4
input { name: "X" data_type: TYPE_STRING dims: 1 }
output { name: "Y" data_type: TYPE_STRING dims: 1 }
"""
_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep({delay})
        answer = np.array([[b"{answer}"]], dtype=object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", answer)]) for _ in requests]
"""


def write_version(
    repository: Path, version: int, *, answer: str = "", delay: float = 0, source: str = ""
) -> None:
    """Write a version of the model ``toy``, which answers always the same; or with ``source`` as its code."""
    folder = repository / "toy" / str(version)
    folder.mkdir(parents=True)
    (repository / "toy" / "config.pbtxt").write_text(_CONFIG)
    (folder / "model.py").write_text(source or _MODEL.format(answer=answer, delay=delay))


@pytest.fixture
def toy_repository(tmp_path: Path) -> Path:
    """A model repository with version 1 of ``toy``, which answers ``one``."""
    repository = tmp_path / "repository"
    write_version(repository, 1, answer="one")
    return repository


@pytest.fixture
def make_checkpoint(tiny_llama_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Seal a copy of the tiny Llama; keyword arguments replace fields of its manifest."""

    def make(name: str = "checkpoint", **changed: object) -> Path:
        directory = tmp_path / name
        shutil.copytree(tiny_llama_dir, directory)
        fields: dict[str, object] = {
            "kind": "merged",
            "base": BaseModel("tiny", None, {}),
            "dtype": "fp32",
            "parameters": 1000,
            "bytes_per_parameter": 4.0,
            "tokens": TokenIds(bos=None, eos=[0], pad=0, stop=[0], add_bos=False),
            "max_context": 128,
        }
        seal(directory, Manifest(**(fields | changed)))  # type: ignore[arg-type]
        return directory

    return make
