"""SmolLM2-135M-Instruct from its package, as an fp32 checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from checkpoints.atomic import atomic_directory
from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import seal
from trimaran.demo_data import find_demo_model


def save_real_checkpoint(target: Path) -> Path:
    """Write and seal the packaged model at ``target``, in fp32 so that equality can be asked of it."""
    source = find_demo_model()
    model, tokenizer = load_model(source, dtype="fp32"), load_tokenizer(source)
    with atomic_directory(target) as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        seal(directory, replace(base_manifest(source, model, tokenizer), dtype="fp32"))
    return target
