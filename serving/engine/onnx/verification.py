"""Whether a written model says what torch says: the file by onnx, the logits by onnxruntime."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints.errors import ExportError
from serving.engine.onnx.runner import OnnxRunner
from serving.engine.onnx.session import MODEL_NAME, open_session

__all__ = ["TOLERANCE", "Probe", "check_file", "check_finite", "check_logits", "probe"]

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit."""

_CAPACITY = 16


@dataclass(frozen=True)
class Probe:
    """Two prompts of different lengths and what torch says after each of their tokens."""

    prompts: list[list[int]]
    logits: list[torch.Tensor]
    """float32 ``[tokens, vocab]`` of each prompt."""


@torch.inference_mode()
def probe(model: Any) -> Probe:
    """Compute the logits of ``model``, an unchanged causal LM in float32, for two random prompts."""
    draw = random.Random(0)
    size = int(model.get_input_embeddings().weight.shape[0])
    prompts = [[draw.randrange(size) for _ in range(length)] for length in (11, 6)]
    return Probe(
        prompts, [model(input_ids=torch.tensor([item]), use_cache=False).logits[0] for item in prompts]
    )


def check_file(directory: Path) -> None:
    """Check graph and external data with ``onnx.checker``.

    Raises:
        ExportError: the file is not valid ONNX.
    """
    import onnx

    try:
        onnx.checker.check_model(str(directory / MODEL_NAME))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported model is not valid ONNX: {error}; use the torch engine") from error


def check_logits(directory: Path, expected: Probe) -> None:
    """Hold prefill, prefill in chunks and a decode step of rows of different lengths against torch.

    Raises:
        ExportError: a logit differs by more than ``TOLERANCE`` of the largest.
    """
    for name, found, wanted in _compute(directory, expected):
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        if not difference <= TOLERANCE:  # also where it is NaN
            raise ExportError(
                f"the exported model does not equal torch: logits of a {name} differ by {difference:.1e} of "
                f"the largest logit, and {TOLERANCE:.0e} is allowed; use the torch engine"
            )


def check_finite(directory: Path, expected: Probe) -> None:
    """Check that a quantized model computes numbers; how far they drifted is measured by the caller.

    Raises:
        ExportError: a logit is NaN or infinite.
    """
    for name, found, _ in _compute(directory, expected):
        if not bool(found.isfinite().all()):
            raise ExportError(f"the quantized model gives NaN or infinity in a {name}; export it as fp32")


@torch.inference_mode()
def _compute(directory: Path, expected: Probe) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Return (kind of pass, logits found, logits of torch) of every kind of pass the engine makes."""
    runner = OnnxRunner(open_session(directory, None), slots=len(expected.prompts), max_context=_CAPACITY)
    results = [
        ("whole prompt", runner.prompt_logits(ids).clone(), logits)
        for ids, logits in zip(expected.prompts, expected.logits, strict=True)
    ]
    for row, (ids, logits) in enumerate(zip(expected.prompts, expected.logits, strict=True)):
        middle = len(ids) // 2
        for start, end in ((0, middle), (middle, len(ids) - 1)):
            found = runner.prefill(row, ids[start:end], start)[0].clone()
            results.append(("prefill", found, logits[end - 1]))
    last = runner.decode([ids[-1] for ids in expected.prompts], [len(ids) - 1 for ids in expected.prompts])
    results += [
        ("decode step", found, logits[-1]) for found, logits in zip(last, expected.logits, strict=True)
    ]
    return results
