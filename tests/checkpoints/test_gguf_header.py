from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader
from transformers import PreTrainedTokenizerFast

from checkpoints.gguf_header import read_gguf_text
from tests.tiny_gguf import save_tiny_gguf
from tests.tiny_models import build_tiny_llama


def test_texts_are_those_of_the_full_reader(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    path = save_tiny_gguf(tmp_path / "tiny.gguf", build_tiny_llama(tiny_tokenizer), tiny_tokenizer)
    full = GGUFReader(path)
    # The template stands behind arrays of texts and of numbers, which have to be stepped over.
    for key in ("general.license", "general.name", "tokenizer.chat_template"):
        field = full.get_field(key)
        assert field is not None
        assert read_gguf_text(path, key) == field.contents()
    assert read_gguf_text(path, "general.author") is None
    assert read_gguf_text(path, "llama.block_count") is None  # a number


@pytest.mark.parametrize("content", [b"", b"GGML" + bytes(40), b"GGUF\x00\x00\x00\x03" + bytes(40)])
def test_another_format_has_no_texts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_gguf_text(tmp_path / "file", "general.license") is None
