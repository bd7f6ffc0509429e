"""What the openvino engine serves, and how a checkpoint becomes its model files."""

from __future__ import annotations

import math
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.manifest import KeptTensor, Manifest
from serving.engine.config import EngineConfig
from serving.engine.exporter import Exporter
from serving.engine.openvino.architectures import LATENT_ATTENTION, SHOWN_EQUAL, check_architecture

__all__ = ["EXPORTER", "OpenVinoExporter"]

_MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")


class OpenVinoExporter(Exporter):
    """Converts merged, unquantized checkpoints of the architectures that are shown to be exact."""

    weights = ("fp32", "fp16", "int8", "int4")
    kv_dtypes = ("fp32", "fp16", "u8")
    architectures = SHOWN_EQUAL
    converts = True
    own_process = True
    # Beside the running requests' tokens. 64 made the p99 gap of 16 streams five times their median.
    prefill_chunk = 16

    def installed(self) -> str | None:
        """OpenVINO, its GenAI library and nncf, on a machine they run on."""
        if platform.machine() not in _MACHINES:
            return f"OpenVINO runs on x86-64 and Arm CPUs, not on {platform.machine()}"
        missing = [name for name in ("openvino", "openvino_genai", "nncf") if find_spec(name) is None]
        return "pip install 'trimaran[openvino]'" if missing else None

    def default_weights(self, manifest: Manifest) -> str:
        """fp32 for fp32; else fp16, which holds a bf16 weight with its whole mantissa."""
        return "fp32" if manifest.dtype == "fp32" else "fp16"

    def default_kv_dtype(self, manifest: Manifest, weights: str) -> str:
        """fp32 beside fp32 weights, else fp16."""
        return "fp32" if weights == "fp32" else "fp16"

    def default_kv_tokens(self, slots: int, max_context: int) -> int:
        """Whole blocks for every slot: no two requests share one."""
        from serving.engine.openvino.pipeline import BLOCK

        return slots * math.ceil(max_context / BLOCK) * BLOCK

    def check(self, manifest: Manifest, model_config: Any, config: EngineConfig) -> None:
        """Check device, precision, KV cache and architecture.

        Raises:
            UnsupportedCheckpoint: the model cannot be served exactly.
        """
        if manifest.kind == "adapter":
            raise UnsupportedCheckpoint(
                f"the openvino engine converts whole checkpoints, not a {manifest.method} adapter on its base"
            )
        if config.device == "cuda":
            raise UnsupportedCheckpoint("the openvino engine runs on CPUs, not on a GPU")
        if manifest.quantization is not None:
            raise UnsupportedCheckpoint(
                "the checkpoint is quantized to NF4, which the openvino engine does not compute; the one it "
                "was made from can be exported with --weights int4"
            )
        check_architecture(model_config)
        if config.kv_dtype == "u8" and model_config.get_text_config().model_type in LATENT_ATTENTION:
            raise UnsupportedCheckpoint(
                "kv_dtype u8 gives wrong tokens where keys and values differ in size, as in "
                f"{model_config.model_type}; use fp16 or fp32"
            )

    def convert(self, checkpoint: Path, target: Path, config: EngineConfig) -> None:
        """Write the OpenVINO model into ``target/openvino``.

        Raises:
            UnsupportedCheckpoint: a weight does not fit the precision asked for.
        """
        from serving.engine.openvino.conversion.convert import convert_checkpoint
        from serving.engine.openvino.files import model_folder

        folder = model_folder(target)
        folder.mkdir()
        convert_checkpoint(checkpoint, folder, config.weights, trust_remote_code=config.trust_remote_code)

    def kept(self, checkpoint: Path, target: Path, config: EngineConfig) -> list[KeptTensor]:
        """Norms and biases, in fp16, and what nncf left beside them."""
        import openvino as ov

        from serving.engine.kept_tensors import kept_tensors
        from serving.engine.openvino.files import MODEL_NAME, find_model_folder

        graph = ov.Core().read_model(find_model_folder(target) / MODEL_NAME)
        wide = {
            node.get_friendly_name().removeprefix("self._model.")
            for node in graph.get_ops()
            if node.get_type_name() == "Constant" and node.get_element_type().is_real()
        }
        return kept_tensors(checkpoint, wide, "float16", trust_remote_code=config.trust_remote_code)

    def logits_model(self, target: Path, config: EngineConfig) -> Any:
        """The written graph, compiled as it will be served."""
        from serving.engine.openvino.logits import LogitsModel

        return LogitsModel(target, config)


EXPORTER = OpenVinoExporter()
