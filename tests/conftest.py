"""Fixtures every folder of tests shares. The builders behind them are in ``tiny_models``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before anything imports a hub client: no test may depend on a network.
os.environ["HF_HUB_OFFLINE"] = "1"

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def pytest_configure(config: pytest.Config) -> None:
    """Let through what a dependency does to itself: PEFT 0.21 reads an attribute transformers 5 renamed."""
    config.addinivalue_line(
        "filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    )


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 320 tokens with ChatML template. Do not change it."""
    from tests.tiny_models import build_tiny_tokenizer

    return build_tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random fp32 Llama, its tokenizer and generation config. Do not write to it."""
    from tests.tiny_models import save_tiny_llama

    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama") / "model")
