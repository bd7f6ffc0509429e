"""Real texts as token ids: GSM8K's questions and answers, HumanEval's prompts, out of packages."""

from __future__ import annotations

import json
from pathlib import Path

from trimaran.demo_data import write_demo_data

__all__ = ["prompt_texts"]


def prompt_texts(checkpoint: Path, folder: Path) -> list[list[int]]:
    """Return the token ids of each text, no special tokens among them.

    Args:
        checkpoint: its tokenizer is used.
        folder: where the rows are kept.

    Raises:
        DataError: a package is not installed.
    """
    from tokenizers import Tokenizer

    data = write_demo_data(folder)
    texts = []
    for path in (data.train, data.evaluation, data.prompts):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts.append(row.get("prompt") or "\n".join(part["content"] for part in row["messages"]))
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
