"""What this machine computes fast."""

from __future__ import annotations

__all__ = ["computes_bf16", "computes_int8", "cpu_computes_bf16"]


def computes_bf16() -> bool:
    """Whether products in bfloat16 run on instructions for it: on a GPU, or a CPU that has them."""
    import torch

    return torch.cuda.is_available() or cpu_computes_bf16()


def cpu_computes_bf16() -> bool:
    """Whether the CPU has instructions for products in bfloat16."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def computes_int8() -> bool:
    """Whether there is a compiled kernel for int8 weights, and no AMX, which it would leave idle."""
    from serving.engine.torch.compiled.openmp import pytorch_openmp

    try:
        from serving.engine.torch.compiled.linear.int8_kernel import KERNELS
        from serving.engine.torch.compiled.tile import INSTRUCTIONS
    except ModuleNotFoundError:  # Numba
        return False
    return bool(KERNELS) and not (INSTRUCTIONS and INSTRUCTIONS.tiles) and pytorch_openmp() is not None
