"""The contract, of every engine and of engines in a process of their own, on a tiny Llama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from serving.engine.contract import Engine
from tests.serving.endpoint import sealed_llama
from tests.serving.engine.contract_suite import ContractSuite
from tests.serving.engine.engines import NAMES, build_engine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("contract") / "checkpoint", tiny_tokenizer)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return tiny_tokenizer


@pytest.fixture(scope="module", params=[*NAMES, "torch in a process", "openvino in a process"])
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[Engine]:
    name, _, process = request.param.partition(" ")
    engine = build_engine(name, checkpoint, checkpoint.parent / name, own_process=bool(process))
    yield engine
    engine.close()


class TestTiny(ContractSuite):
    """See ``ContractSuite``."""
