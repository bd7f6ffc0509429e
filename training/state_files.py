"""Whether a state to resume from is there whole: a run may be killed while it writes one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

__all__ = ["LAST", "is_complete"]

LAST = "trainer_state.json"
"""What the Trainer writes into a state when all else is there."""

_INDEX = "model.safetensors.index.json"
# What torch.distributed.checkpoint writes last of a sharded state, when every rank's part is there.
_SHARDED = ("pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata")
# What DeepSpeed writes last of one: the name of the directory with every rank's part.
_LATEST = "latest"


def is_complete(state: Path, ranks: int, *, scaled: bool) -> bool:
    """Whether all is there to go on from; what torch saves is a ZIP file, which ends in its directory.

    Args:
        state: the directory that the Trainer wrote, whichever way weights were split.
        ranks: how many wrote it.
        scaled: whether the loss was scaled, so there is a scale to go on with.
    """
    try:
        return _are_whole(state, ranks, scaled=scaled)
    except (OSError, ValueError, KeyError, SafetensorError):
        return False


def _are_whole(state: Path, ranks: int, *, scaled: bool) -> bool:
    random = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    saved = ["scheduler.pt", *random, *(["scaler.pt"] if scaled else [])]
    split = all((state / name).is_file() for name in _SHARDED)
    if (state / _LATEST).is_file():
        saved += _zero_files(state, ranks)
        split = True
    elif not split:
        saved.append("optimizer.pt")
    if not all(zipfile.is_zipfile(state / name) for name in saved):
        return False
    json.loads((state / LAST).read_text(encoding="utf-8"))
    weights = _weight_files(state)
    for path in weights:
        with safe_open(path, framework="pt"):
            pass
    return bool(weights) or split


def _zero_files(state: Path, ranks: int) -> list[str]:
    tag = (state / _LATEST).read_text(encoding="utf-8").strip()
    kinds = ("model", "optim")
    return [
        f"{tag}/zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for rank in range(ranks) for kind in kinds
    ]


def _weight_files(state: Path) -> list[Path]:
    """Return the files of the adapter or the model; of a model in several, those that its index names."""
    if (state / _INDEX).is_file():
        index = json.loads((state / _INDEX).read_text(encoding="utf-8"))
        return [state / name for name in sorted({*index["weight_map"].values()})]
    return [path for name in ("adapter_model", "model") if (path := state / f"{name}.safetensors").is_file()]
