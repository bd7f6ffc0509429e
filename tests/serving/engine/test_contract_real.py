"""The contract, of every engine, on a real checkpoint: SmolLM2-135M-Instruct with few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from transformers import PreTrainedTokenizerBase

from checkpoints.loading import load_tokenizer
from serving.engine.contract import Engine
from tests.serving.engine.contract_suite import ContractSuite
from tests.serving.engine.engines import NAMES, build_engine
from tests.serving.real_checkpoint import save_real_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXTS = [
    "The capital of France is",
    "长城是",
    "def fibonacci(n):\n    ",
    "Once upon a time there was a small ship on the sea, and its captain was a cat. It was",
    "🙂",
    "北京是中国的首都，",
    "Water boils at",
    "How much is 2 + 2?",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_real_checkpoint(tmp_path_factory.mktemp("real-contract") / "checkpoint")


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(checkpoint)


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[Engine]:
    engine = build_engine(request.param, checkpoint, checkpoint.parent / request.param)
    yield engine
    engine.close()


class TestReal(ContractSuite):
    """See ``ContractSuite``; prompts are texts, Chinese and emoji among them."""

    SHORTER: ClassVar[int] = 3

    _ids: list[list[int]]

    @pytest.fixture(autouse=True)
    def _texts(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]

    def prompts(self, count: int, longest: int = 60) -> list[list[int]]:
        """Return the first ``longest`` tokens of texts."""
        return [ids[:longest] for ids in self._ids[:count]]

    @pytest.fixture
    def prompt(self) -> list[int]:
        """A story's beginning."""
        return self._ids[3]

    @pytest.fixture
    def repetitive(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Two colours, and the model never gets out of them."""
        return tokenizer.encode("red blue red blue red")
