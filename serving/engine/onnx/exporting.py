"""What the onnx engine serves, and how a checkpoint becomes an ONNX model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.manifest import KeptTensor, Manifest
from serving.engine.config import EngineConfig
from serving.engine.exporter import Exporter
from serving.engine.onnx.runner import OnnxRunner
from serving.engine.onnx.session import MODEL_NAME, open_session
from serving.engine.onnx.support import MODEL_TYPES, check_architecture

__all__ = ["EXPORTER", "OnnxExporter"]


class OnnxExporter(Exporter):
    """Converts checkpoints to ONNX."""

    weights = ("fp32", "int8", "int4")
    kv_dtypes = ("fp32",)
    architectures = MODEL_TYPES
    converts = True

    def installed(self) -> str | None:
        """The extra to install where one of onnx, onnxruntime and onnxscript is missing."""
        missing = [
            name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None
        ]
        return f"pip install 'trimaran[onnx]' ({', '.join(missing)} missing)" if missing else None

    def default_weights(self, manifest: Manifest) -> str:
        """fp32, which holds every 16-bit number exactly; the CPU computes in float32."""
        return "fp32"

    def default_kv_dtype(self, manifest: Manifest, weights: str) -> str:
        """fp32: what the attention computes in."""
        return "fp32"

    def check(self, manifest: Manifest, model_config: Any, config: EngineConfig) -> None:
        """Check architecture, quantization and device.

        Raises:
            UnsupportedCheckpoint: the model cannot be served exactly.
        """
        if manifest.kind == "adapter":
            raise UnsupportedCheckpoint(
                f"the onnx engine converts whole checkpoints, not a {manifest.method} adapter on its base"
            )
        if manifest.quantization is not None:
            raise UnsupportedCheckpoint(
                "the onnx engine takes unquantized checkpoints, not nf4, and quantizes them itself "
                "(--weights int8)"
            )
        if manifest.remote_code:
            raise UnsupportedCheckpoint(
                "the onnx engine cannot export a checkpoint with Python code of its own"
            )
        if config.device == "cuda":
            raise UnsupportedCheckpoint("the onnx engine computes on the CPU, not on a GPU")
        check_architecture(model_config)

    def convert(self, checkpoint: Path, target: Path, config: EngineConfig) -> None:
        """Write ``model.onnx`` and ``model.onnx.data``, verified against torch.

        Raises:
            ExportError: the written model does not equal torch's.
            UnsupportedCheckpoint: the model cannot be exported.
        """
        from serving.engine.onnx.conversion import convert

        convert(checkpoint, target, config.weights)

    def kept(self, checkpoint: Path, target: Path, config: EngineConfig) -> list[KeptTensor]:
        """Embedding, norms and biases, in float32, and what the quantizer left beside them."""
        import onnx

        from serving.engine.kept_tensors import kept_tensors

        graph = onnx.load(str(target / MODEL_NAME), load_external_data=False).graph
        wide = {
            one.name.removeprefix("model.")
            for one in graph.initializer
            if one.data_type == onnx.TensorProto.FLOAT
        }
        return kept_tensors(checkpoint, wide, "float32")

    def logits_model(self, target: Path, config: EngineConfig) -> Any:
        """The written model over whole sequences."""
        return _LogitsModel(open_session(target, config.threads))


class _LogitsModel:
    device = torch.device("cpu")

    def __init__(self, session: Any) -> None:
        self._session = session

    def __call__(self, input_ids: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Return ``logits`` float32 ``[1, T, vocab]`` for ``input_ids`` int64 ``[1, T]``."""
        token_ids = input_ids[0].tolist()
        runner = OnnxRunner(self._session, slots=1, max_context=len(token_ids))
        return SimpleNamespace(logits=runner.prompt_logits(token_ids)[None])


EXPORTER = OnnxExporter()
