"""The tokenizer of any kind of checkpoint. Imports no torch of its own: a server's front end has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from checkpoints.load_errors import as_checkpoint_error
from checkpoints.quiet import quiet_transformers
from checkpoints.sources import describe_source

__all__ = ["load_tokenizer"]


def load_tokenizer(
    source: str | Path, *, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of any kind of checkpoint; an adapter without one uses its base's.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    if (Path(source) / "tokenizer_config.json").is_file():
        # A directory of its own; a version converted for an engine has a tokenizer and no weights.
        return _read_tokenizer(source, source, trust_remote_code=trust_remote_code)
    where = describe_source(source)
    if where.kind == "adapter":
        from checkpoints.adapters import adapter_base

        assert where.path is not None
        return load_tokenizer(adapter_base(where.path), trust_remote_code=trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if where.kind == "gguf":
        options["gguf_file"] = cast(Path, where.path).name
    if where.kind == "hub":
        options["revision"] = revision
    return _read_tokenizer(source, where.directory or source, **options)


def _read_tokenizer(source: str | Path, where: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    with as_checkpoint_error(source, "the tokenizer of "), quiet_transformers():
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(where, **options))
