"""A described source -> a model: the one call each kind needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
)

from checkpoints.errors import CheckpointError
from checkpoints.load_errors import as_checkpoint_error, some
from checkpoints.quiet import quiet_transformers
from checkpoints.sources import Source, describe_source
from checkpoints.state_dicts import read_state_dict

__all__ = ["build_model", "empty_model"]

# Buffers that older versions of transformers saved; today's models compute them.
_HARMLESS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".position_ids")


def empty_model(
    source: str | Path, *, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedModel:
    """Return the model's structure on the meta device: names and shapes, no memory.

    Raises:
        CheckpointError: the config cannot be read or names no causal language model.
    """
    where = describe_source(source)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if where.kind == "gguf":
        options["gguf_file"] = cast(Path, where.path).name
    if where.kind == "hub":
        options["revision"] = revision
    with as_checkpoint_error(source), quiet_transformers():
        config = AutoConfig.from_pretrained(where.directory or source, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return cast(PreTrainedModel, model)


def build_model(
    where: Source,
    source: str | Path,
    options: dict[str, Any],
    pack: BitsAndBytesConfig | None,
    *,
    trust_remote_code: bool,
    revision: str | None,
) -> tuple[Any, dict[str, Any]]:
    """Build the model of any source but an adapter.

    Args:
        where: what ``source`` is.
        source: path or hub id.
        options: dtype, device map and (GGUF) config, as ``from_pretrained`` takes them.
        pack: pack Linear layers so while loading.
        trust_remote_code: run Python code that comes with the checkpoint.
        revision: branch, tag or commit of a hub id.

    Returns:
        The model and transformers' report of missing and unexpected weights.

    Raises:
        CheckpointError: a state dict is refused or does not fit the config.
        Exception: what transformers raises; ``load_errors`` translates it.
    """
    auto = {"trust_remote_code": trust_remote_code, "output_loading_info": True}
    if where.kind == "pytorch":
        return _from_state_dict(where, source, options, pack, trust_remote_code)
    if where.kind == "gguf":
        path = cast(Path, where.path)
        model, info = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            **auto,
            **options,
        )
        if pack is None:
            return model, info
        # A GGUF cannot be packed on the way in; the dense weights can.
        state = model.state_dict()
        options = {name: value for name, value in options.items() if name != "config"}
        packed, info = _rebuild(type(model), model.config, state, options, pack)
        packed.generation_config = model.generation_config
        return packed, info
    if pack is not None:
        options = {**options, "quantization_config": pack}
    if where.kind == "hub":
        options = {**options, "revision": revision}
    return cast(
        "tuple[Any, dict[str, Any]]",
        AutoModelForCausalLM.from_pretrained(where.directory or source, **auto, **options),
    )


def _from_state_dict(
    where: Source,
    source: str | Path,
    options: dict[str, Any],
    pack: BitsAndBytesConfig | None,
    trust_remote_code: bool,
) -> tuple[Any, dict[str, Any]]:
    state = read_state_dict(where.files)
    empty = empty_model(source, trust_remote_code=trust_remote_code)
    model, info = _rebuild(type(empty), empty.config, state, options, pack)
    unexpected = sorted(name for name in info["unexpected_keys"] if not name.endswith(_HARMLESS))
    if unexpected:
        raise CheckpointError(
            f"{source} holds weights that {type(empty).__name__} has no place for: {some(unexpected)}. "
            "Is the config.json beside it the right one?"
        )
    directory = cast(Path, where.directory)
    if (directory / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(directory)
    return model, info


def _rebuild(
    model_class: Any,
    config: Any,
    state: dict[str, torch.Tensor],
    options: dict[str, Any],
    pack: BitsAndBytesConfig | None,
) -> tuple[Any, dict[str, Any]]:
    if pack is not None:
        options = {**options, "quantization_config": pack}
    result = model_class.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True, **options
    )
    return cast("tuple[Any, dict[str, Any]]", result)
