"""An ONNX export in a real Triton: the tokens of ``generate``, from the numpy 1 environment of its stub."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from serving.client import TritonClient
from serving.triton_server import TritonServer
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import exported, sealed_llama

pytestmark = pytest.mark.triton


def test_eight_prompts_at_once_equal_generate(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    checkpoint = sealed_llama(tmp_path / "checkpoint", tiny_tokenizer)
    version = exported(checkpoint, tmp_path / "repository", engine="onnx")
    assert not list(version.rglob("*.safetensors"))
    model, encoder = load_model(checkpoint), PromptEncoder.from_checkpoint(checkpoint)
    texts = ["The sea", "你好，世界", "Once upon a time there was a small ship. " * 3, "🙂🚢"] * 2
    stop = encoder.tokens.stop
    references = [generate_greedily(model, encoder.encode(text=text), 32, stop) for text in texts]
    with (
        TritonServer(tmp_path / "repository") as server,
        TritonClient(server.grpc_url, timeout=60) as client,
        ThreadPoolExecutor(len(texts)) as pool,
    ):
        answers = list(pool.map(lambda text: client.generate(text=text, max_tokens=32), texts))
    assert_equal_tokens(references, [answer.output_ids for answer in answers])
