"""A real exported repository for the tests of ``trimaran deploy``."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.serving.endpoint import exported, sealed_llama


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A sealed fp32 Llama. Do not write to it."""
    return sealed_llama(tmp_path_factory.mktemp("deploy") / "checkpoint", tiny_tokenizer)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """It, exported for torch: 4 slots of 256 tokens, 2 threads; all may read it. Do not write to it."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    exported(tiny_checkpoint, folder, slots=4, max_context=256, threads=2)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | (0o005 if path.is_dir() else 0o004))
    return folder
