"""The manifest of a checkpoint that has none yet: from its config, its tokenizer, and what it was made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from checkpoints.licences import find_licence
from checkpoints.manifest import (
    MANIFEST_NAME,
    BaseModel,
    Kind,
    Manifest,
    Parent,
    empty_metrics,
    file_sha256,
    manifest_sha256,
    read_manifest,
)
from checkpoints.nf4_experts import NF4Experts, packed_experts
from checkpoints.nf4_packing import BLOCK_SIZE
from checkpoints.nf4_report import kept_tensors, packed_size
from checkpoints.sizes import is_packed, parameter_count, storage_bytes
from checkpoints.sources import NF4_METHOD, Source, describe_source
from checkpoints.tokens import token_ids

__all__ = [
    "base_manifest",
    "derived_manifest",
    "describe_quantization",
    "dtype_name",
    "max_context",
    "tokenizer_hashes",
]

_DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")


def base_manifest(source: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Manifest:
    """Describe a loaded checkpoint; later stages replace what they change and seal the result.

    ``base`` names ``source`` itself. Where ``source`` has a manifest it becomes the ``parent``, and
    licence and needs are taken from it.

    Args:
        source: what ``load_model`` was given.
        model: the model it returned (before any adapter is put on it).
        tokenizer: its tokenizer.
    """
    where = describe_source(source)
    parent, origin = _parent(where)
    files, revision = _weight_files(where, source, model)
    name = str(source) if where.kind == "hub" else str(Path(source).resolve())
    parameters = parameter_count(model)
    quantization = describe_quantization(model)
    chat_template, tokenizer_hash = tokenizer_hashes(tokenizer)
    return Manifest(
        kind="base",
        base=BaseModel(name, revision, files),
        dtype=dtype_name(model),  # type: ignore[arg-type]
        quantization=quantization,
        parameters=parameters,
        bytes_per_parameter=round(storage_bytes(model) / parameters, 4),
        kept_16bit=kept_tensors(model) if quantization else [],
        tokens=token_ids(tokenizer, model.config, model.generation_config),
        max_context=max_context(model.config, tokenizer),
        chat_template_sha256=chat_template,
        tokenizer_sha256=tokenizer_hash,
        generation_config_sha256=_generation_config_hash(model),
        licence=origin.licence if origin else find_licence(where),
        remote_code=type(model).__module__.startswith("transformers_modules"),
        needs_import=_is_ours(model)
        or bool(packed_experts(model))
        or (origin is not None and origin.needs_import),
        parent=parent,
    )


def dtype_name(model: PreTrainedModel) -> str:
    """Return "bf16", "fp16" or "fp32": what a model computes in."""
    for module in model.modules():
        if is_packed(getattr(module, "weight", None)) or isinstance(module, NF4Experts):
            return _DTYPE_NAMES.get(module.compute_dtype, "bf16")
    return _DTYPE_NAMES.get(model.dtype, "fp32")


def describe_quantization(model: PreTrainedModel) -> dict[str, Any] | None:
    """Return what an NF4 model was packed with; None for a model that is not quantized."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    settings = config if isinstance(config, dict) else config.to_dict()
    if not settings.get("load_in_4bit") and settings.get("quant_method") != NF4_METHOD:
        return {"method": str(settings.get("quant_method", "unknown"))}
    size = packed_size(model)
    return {
        "method": str(settings["bnb_4bit_quant_type"]),
        "double_quantization": bool(settings["bnb_4bit_use_double_quant"]),
        "compute_dtype": dtype_name(model),
        "block_size": BLOCK_SIZE,
        "packed_parameters": size.parameters,
        "packed_bytes_per_parameter": round(size.bytes_per_parameter, 4),
    }


def max_context(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest sequence (prompt and answer, in tokens) a model takes."""
    text = config.get_text_config()
    for key in _CONTEXT_KEYS:
        value = getattr(text, key, None)
        if isinstance(value, int) and value > 0:
            return value
    # A tokenizer that does not know says 1e30.
    return min(int(tokenizer.model_max_length), 1 << 20)


def tokenizer_hashes(tokenizer: PreTrainedTokenizerBase) -> tuple[str | None, str | None]:
    """Return the sha256 of the chat template and of the tokenizer, each None where there is none.

    The tokenizer's is of its ``tokenizer.json`` without padding and truncation, which change in use.
    """
    template = tokenizer.chat_template
    template_hash = None
    if template:
        text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
        template_hash = hashlib.sha256(text.encode()).hexdigest()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return template_hash, _hash(tokenizer.get_vocab())
    state = json.loads(backend.to_str())
    return template_hash, _hash({key: state[key] for key in state if key not in ("padding", "truncation")})


def _is_ours(model: PreTrainedModel) -> bool:
    """Whether the model class is one of ``checkpoints.architectures``."""
    return type(model).__module__.startswith("checkpoints.")


def _generation_config_hash(model: PreTrainedModel) -> str | None:
    config = model.generation_config
    if config is None:
        return None
    values = config.to_dict()
    values.pop("transformers_version", None)
    return _hash(values)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _parent(where: Source) -> tuple[Parent | None, Manifest | None]:
    directory = where.path
    if directory is None or not (directory / MANIFEST_NAME).is_file():
        return None, None
    return Parent(directory.resolve().name, manifest_sha256(directory)), read_manifest(directory)


def _weight_files(
    where: Source, source: str | Path, model: PreTrainedModel
) -> tuple[dict[str, str], str | None]:
    """Return the hash of each weight file, and the commit of a hub model."""
    if where.kind != "hub":
        return {path.name: file_sha256(path) for path in where.files}, None
    from huggingface_hub import try_to_load_from_cache

    commit = getattr(model.config, "_commit_hash", None)
    config = try_to_load_from_cache(str(source), "config.json", revision=commit)
    files: dict[str, str] = {}
    if isinstance(config, str):
        snapshot = Path(config).parent
        weights = sorted(snapshot.glob("*.safetensors")) or sorted(snapshot.glob("*.bin"))
        files = {path.name: file_sha256(path) for path in weights}
    return files, commit


def derived_manifest(
    source: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kind: Kind,
    step: str,
    settings: dict[str, Any],
) -> Manifest:
    """Return the manifest of a checkpoint that was made from ``source``, with the lineage that one has.

    Args:
        source: the checkpoint it was made from.
        model: what was made of it.
        tokenizer: its tokenizer.
        kind: of the new checkpoint.
        step: name of the command, under which ``settings`` are kept beside those of earlier steps.
        settings: of the command.
    """
    made = replace(base_manifest(source, model, tokenizer), kind=kind, settings={step: settings})
    if not (source / MANIFEST_NAME).is_file():
        return made
    before = read_manifest(source)
    return replace(
        made,
        base=before.base,
        method=before.method,
        merge_base=before.merge_base,
        settings={**before.settings, step: settings},
        training_data=before.training_data,
        # Perplexity and fidelity of the source are not those of what was made of it.
        metrics={**empty_metrics(), **{k: before.metrics.get(k) for k in ("final_loss", "eval_loss")}},
    )
