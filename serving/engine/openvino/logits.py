"""An exported model computing a whole text, as ``checkpoints.fidelity`` takes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from serving.engine.config import EngineConfig
from serving.engine.openvino.files import MODEL_NAME, find_model_folder
from serving.engine.openvino.properties import compile_properties, computed_in

__all__ = ["LogitsModel"]


@dataclass(frozen=True)
class Logits:
    """The output."""

    logits: torch.Tensor
    """float32 ``[1, T, vocab]``."""


class LogitsModel:
    """The graph that is served, compiled with the same weights and precisions.

    Its attention reads the new keys and values of one pass; the pipeline's reads them from its pages.

    Args:
        target: an exported version's checkpoint.
        config: its engine settings.
    """

    def __init__(self, target: Path, config: EngineConfig) -> None:
        self.device = torch.device("cpu")
        path = find_model_folder(target) / MODEL_NAME
        properties = compile_properties(config)
        self.computed_in = computed_in(properties)
        """Precision of the products on this machine; another CPU may have another."""
        compiled = ov.Core().compile_model(path, "CPU", properties)
        self._request = compiled.create_infer_request()

    def __call__(self, *, input_ids: torch.Tensor, use_cache: bool = False, **_: Any) -> Logits:
        """Compute int64 ``[1, T]``."""
        length = input_ids.shape[1]
        self._request.reset_state()
        found = self._request.infer(
            {
                "input_ids": input_ids.numpy(),
                "attention_mask": torch.ones((1, length), dtype=torch.int64).numpy(),
                "position_ids": torch.arange(length)[None].numpy(),
                "beam_idx": torch.zeros(1, dtype=torch.int32).numpy(),
            }
        )
        return Logits(torch.from_numpy(found["logits"].copy()).float())
