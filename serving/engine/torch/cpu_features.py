"""What this machine computes fast."""

from __future__ import annotations

__all__ = ["computes_bf16", "computes_int8"]


def computes_bf16() -> bool:
    """Whether products in bfloat16 run on instructions for it: on a GPU, or a CPU that has them."""
    import torch

    return torch.cuda.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def computes_int8() -> bool:
    """Whether there is a compiled kernel for int8 weights, and no AMX, which it would leave idle."""
    import torch

    from serving.engine.torch.compiled.kernels import kernel

    if kernel("int8_linear", torch.float32) is None:
        return False
    from serving.engine.torch.compiled.tile import INSTRUCTIONS

    return INSTRUCTIONS is not None and not INSTRUCTIONS.tiles
