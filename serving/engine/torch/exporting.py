"""What the torch engine serves: checkpoints as they are, through Hugging Face's modelling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.exporter import Exporter
from serving.engine.torch.support import SHOWN_EQUAL, check_supported

__all__ = ["EXPORTER", "TorchExporter"]


class TorchExporter(Exporter):
    """Serves a checkpoint's own files."""

    weights = ("bf16", "fp16", "fp32", "nf4")
    kv_dtypes = ("bf16", "fp16", "fp32")
    architectures = frozenset(SHOWN_EQUAL)
    converts = False

    def installed(self) -> str | None:
        """torch is what a checkpoint is loaded with, so it is always there."""
        return None

    def default_weights(self, manifest: Manifest) -> str:
        """NF4 for a quantized checkpoint, else the dtype of its weights."""
        return "nf4" if manifest.quantization else manifest.dtype

    def default_kv_dtype(self, manifest: Manifest, weights: str) -> str:
        """The dtype the model computes in."""
        return manifest.dtype if weights == "nf4" else weights

    def check(self, manifest: Manifest, model_config: Any, config: EngineConfig) -> None:
        """Check architecture, precision and KV cache.

        Raises:
            UnsupportedCheckpoint: the model cannot be served exactly.
        """
        quantized = manifest.quantization is not None
        if quantized != (config.weights == "nf4"):
            raise UnsupportedCheckpoint(
                "the torch engine serves weights as the checkpoint holds them, "
                + (
                    "nf4; leave --weights out"
                    if quantized
                    else "16 or 32 bit; run `trimaran quantize` for nf4"
                )
            )
        expected = self.default_kv_dtype(manifest, config.weights)
        if config.kv_dtype != expected:
            raise UnsupportedCheckpoint(
                f"the torch engine keeps its KV cache in the dtype it computes in, {expected}, "
                f"not {config.kv_dtype}"
            )
        check_supported(model_config, config.max_context)

    def convert(self, checkpoint: Path, target: Path, config: EngineConfig) -> None:
        """Nothing is written: the checkpoint's files are served as they are."""

    def logits_model(self, target: Path, config: EngineConfig) -> Any:
        """The checkpoint in the precision it will be served in."""
        from checkpoints.loading import load_model

        dtype = "auto" if config.weights == "nf4" else config.weights
        return load_model(target, dtype=dtype, trust_remote_code=config.trust_remote_code)


EXPORTER = TorchExporter()
