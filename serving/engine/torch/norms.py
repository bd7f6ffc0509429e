"""RMS norms as one kernel instead of seven, where that gives the model's own numbers."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

__all__ = ["RMSNorm", "fuse_norms"]

_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}
"""Of the largest value; in bfloat16 two roundings: this one rounds once where a model may round twice."""

_FEW_ROWS = 16
"""Up to here a layer norm of the vector beside its negative, whose mean is 0, is the faster kernel."""


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich 2019) by PyTorch's own operator.

    Args:
        weight: scale, ``[size]``.
        epsilon: added to the mean square.
    """

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.epsilon = epsilon
        self._size = weight.shape[0]
        self._both = torch.cat((self.weight, self.weight)).detach()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return ``[..., size]`` normalized over its last dimension."""
        if hidden.numel() <= _FEW_ROWS * self._size:
            both = torch.cat((hidden, -hidden), dim=-1)
            return torch.layer_norm(both, self._both.shape, self._both, None, self.epsilon)[..., : self._size]
        return torch.rms_norm(hidden, self.weight.shape, self.weight, self.epsilon)

    @classmethod
    def of(cls, norm: nn.Module) -> RMSNorm:
        """Return this for a norm of a model that scales by ``weight`` and nothing else."""
        epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
        return cls(cast(torch.Tensor, norm.weight), cast(float, epsilon))


def fuse_norms(model: nn.Module) -> int:
    """Replace the RMS norms that PyTorch computes equally; return how many.

    Architectures differ in where they add one or round, so each norm is compared on a probe.
    """
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            fused = _fused(child)
            if fused is not None:
                setattr(parent, name, fused)
                replaced += 1
    return replaced


@torch.inference_mode()
def _fused(norm: nn.Module) -> RMSNorm | None:
    """Return the fused form of ``norm``, or None where there is none that gives the same numbers."""
    if not type(norm).__name__.endswith("RMSNorm") or isinstance(norm, RMSNorm) or hasattr(norm, "_hf_hook"):
        return None
    weight = getattr(norm, "weight", None)
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or not isinstance(epsilon, float):
        return None
    if weight.dtype not in _TOLERANCE or weight.device.type != "cpu":
        return None
    probe = torch.linspace(-3, 5, 2 * weight.shape[0], dtype=weight.dtype).view(2, -1)
    try:
        expected = norm(probe)
    except (TypeError, RuntimeError):  # a norm that takes more than its input
        return None
    tolerance = _TOLERANCE[weight.dtype]
    # Gemma's weights are offsets from one; in bfloat16 the sum would be rounded, once and for all.
    scales = (weight, 1 + weight) if weight.dtype == torch.float32 else (weight,)
    for scale in scales:
        fused = RMSNorm(scale, epsilon)
        close = float(tolerance * expected.abs().max())
        if torch.allclose(expected, fused(probe), rtol=tolerance, atol=close):
            return fused
    return None
