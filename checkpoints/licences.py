"""Under which licence a checkpoint is, where its files say so."""

from __future__ import annotations

import re

from checkpoints.gguf_header import read_gguf_text
from checkpoints.sources import Source

__all__ = ["find_licence"]

_TEXTS = {
    "Apache License": "apache-2.0",
    "MIT License": "mit",
    "BSD 3-Clause": "bsd-3-clause",
    "LLAMA 3": "llama3",
    "Gemma Terms of Use": "gemma",
}


def find_licence(source: Source) -> str | None:
    """Return the licence named in a GGUF header, a model card or a LICENSE file, else None."""
    if source.kind == "gguf" and source.path is not None:
        licence = read_gguf_text(source.path, "general.license")
        if licence:
            return licence
    directory = source.directory
    if directory is None:
        return None
    card = directory / "README.md"
    if card.is_file():
        # The front matter of a model card: "license: apache-2.0".
        match = re.search(
            r"^license:\s*['\"]?([\w.-]+)", card.read_text(encoding="utf-8", errors="replace"), re.M
        )
        if match:
            return match[1]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (directory / name).is_file():
            head = (directory / name).read_text(encoding="utf-8", errors="replace")[:500]
            return next((licence for text, licence in _TEXTS.items() if text.lower() in head.lower()), None)
    return None
