"""A model of no size in the form of the run's checkpoint: what remains of its memory is the runtime's."""

from __future__ import annotations

from pathlib import Path

from benchmarks.setting import Setting

__all__ = ["tiny_checkpoint"]

_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}


def tiny_checkpoint(setting: Setting) -> Path:
    """Return a sealed checkpoint of one small random layer with the same tokenizer, made once."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from checkpoints.atomic import atomic_directory
    from checkpoints.base import base_manifest
    from checkpoints.loading import load_model, load_tokenizer
    from checkpoints.manifest import seal

    target = setting.cache / f"tiny-{setting.checkpoint_hash[:12]}"
    if target.is_dir():
        return target
    config = AutoConfig.from_pretrained(setting.checkpoint)
    for name, size in _SIZES.items():
        setattr(config, name, size)
    tokenizer = load_tokenizer(setting.checkpoint)
    with atomic_directory(target) as directory:
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        seal(directory, base_manifest(directory, load_model(directory), tokenizer))
    return target
