"""The checkpoint in 4-bit NF4, made once: what NF4 peers and our NF4 engine serve."""

from __future__ import annotations

from pathlib import Path

from benchmarks.failures import PeerFailure
from benchmarks.setting import Setting
from checkpoints.errors import TrimaranError
from checkpoints.quantize import QuantizeConfig, quantize

__all__ = ["checkpoint_in"]


def checkpoint_in(setting: Setting, precision: str) -> Path:
    """Return the checkpoint to load for ``precision``: the run's own, or its NF4 form.

    Raises:
        PeerFailure: it cannot be quantized.
    """
    if precision != "nf4":
        return setting.checkpoint
    target = setting.cache / f"nf4-{setting.checkpoint_hash[:12]}"
    if not target.is_dir():
        try:
            quantize(QuantizeConfig(checkpoint=setting.checkpoint, output=target, fidelity=False))
        except TrimaranError as error:
            raise PeerFailure(str(error)) from error
    return target
