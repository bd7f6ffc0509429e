"""What the torch engine serves: checkpoints as they are, through Hugging Face's modelling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig
from serving.engine.exporter import Exporter
from serving.engine.torch.cpu_features import computes_bf16, computes_int8, cpu_computes_bf16
from serving.engine.torch.support import IN_ONE_PROGRAM, SHOWN_EQUAL, check_supported, shown_equal

__all__ = ["EXPORTER", "TorchExporter"]

_LEAST_SHARE = 0.9
"""Of a model's matrices that have to become int8 for it to be called so."""


class TorchExporter(Exporter):
    """Serves a checkpoint's own files; to int8 they are brought when they are loaded."""

    weights = ("bf16", "fp16", "fp32", "int8", "nf4")
    kv_dtypes = ("bf16", "fp16", "fp32")
    architectures = frozenset(SHOWN_EQUAL)
    converts = False
    # In one process, the threads that talk to Triton take Python's lock from the step: 7% of tokens/s.
    own_process = True

    def installed(self) -> str | None:
        """torch is what a checkpoint is loaded with, so it is always there."""
        return None

    def is_fastest(self, weights: str | None, model_config: Any) -> bool:
        """int8 of the Llama family where the CPU has AVX-512 VNNI: see docs/performance.md."""
        family = model_config.get_text_config().model_type in IN_ONE_PROGRAM
        return weights == "int8" and family and computes_int8()

    def default_weights(self, manifest: Manifest) -> str:
        """NF4 for a quantized checkpoint, else the dtype of its weights."""
        return "nf4" if manifest.quantization else manifest.dtype

    def default_kv_dtype(self, manifest: Manifest, weights: str) -> str:
        """The dtype the model computes in: for NF4 and int8 the checkpoint's, or fp32 where bf16 is emulated.

        On a CPU without bf16 instructions each product in bf16 takes about twice as long as in fp32. There is
        no int8 in fp16, which is computed in bf16.
        """
        if weights == "int8":
            return "bf16" if manifest.dtype != "fp32" and cpu_computes_bf16() else "fp32"
        if weights != "nf4":
            return weights
        return manifest.dtype if manifest.dtype != "bf16" or computes_bf16() else "fp32"

    def check(self, manifest: Manifest, model_config: Any, config: EngineConfig) -> None:
        """Check architecture, precision and KV cache.

        Raises:
            UnsupportedCheckpoint: the model cannot be served exactly.
        """
        if manifest.kind == "adapter" and config.weights != self.default_weights(manifest):
            raise UnsupportedCheckpoint(
                f"an adapter on its base is served in the precision it was trained in, "
                f"{self.default_weights(manifest)}, not {config.weights}; leave --weights out"
            )
        if manifest.kind == "adapter" and config.device_map != "none":
            raise UnsupportedCheckpoint(
                "device_map spreads whole checkpoints over GPUs, not an adapter on its base; leave it out"
            )
        quantized = manifest.quantization is not None
        if quantized != (config.weights == "nf4"):
            raise UnsupportedCheckpoint(
                "the torch engine serves weights as the checkpoint holds them, "
                + (
                    "nf4; leave --weights out"
                    if quantized
                    else "16 or 32 bit, or rounds them to int8; run `trimaran quantize` for nf4"
                )
            )
        if config.weights == "int8":
            _check_int8(model_config, config)
        accepted: tuple[str, ...] = (config.weights,)
        if config.weights == "int8":
            accepted = ("bf16", "fp32")
        elif quantized:
            accepted = (manifest.dtype, "fp32")
        if config.kv_dtype not in accepted:
            raise UnsupportedCheckpoint(
                f"the torch engine keeps its KV cache in the dtype it computes in, "
                f"{' or '.join(sorted(set(accepted)))}, not {config.kv_dtype}"
            )
        check_supported(model_config, config.max_context)

    def convert(self, checkpoint: Path, target: Path, config: EngineConfig) -> None:
        """Nothing is written: the checkpoint's files are served as they are."""

    def logits_model(self, target: Path, config: EngineConfig) -> Any:
        """The checkpoint in the precision it will be served in."""
        from serving.engine.torch.int8 import Int8Linear
        from serving.engine.torch.precision import load_in_precision
        from serving.engine.torch.products import pack_linear_layers

        model = load_in_precision(target, config)
        if config.weights == "int8":
            # As they are served: a kernel rounds inputs, too.
            packed = any(isinstance(module, Int8Linear) for module in model.modules())
            pack_linear_layers(model, rows=1)
            model.computed_in = "int8" if packed else config.kv_dtype
        return model


def _check_int8(model_config: Any, config: EngineConfig) -> None:
    if config.device != "cpu" or config.device_map != "none":
        raise UnsupportedCheckpoint("the torch engine computes int8 weights on a CPU; set device to cpu")
    kind = model_config.get_text_config().model_type
    if not shown_equal(model_config):
        raise UnsupportedCheckpoint(
            f"the torch engine computes int8 weights of architectures it is shown to serve, not of {kind!r}"
        )
    share = _share_in_linear_layers(model_config, config.trust_remote_code)
    if share < _LEAST_SHARE:
        raise UnsupportedCheckpoint(
            f"the torch engine rounds Linear layers to int8, which have {share:.0%} of the weights of "
            f"{kind!r}; experts, and what is not called Linear, would stay as they are"
        )


def _share_in_linear_layers(model_config: Any, trust_remote_code: bool) -> float:
    """Return the part of a model's matrices, input embeddings left out, that plain Linear layers have."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    layers = {id(one.weight) for one in model.modules() if type(one) is torch.nn.Linear}
    embeddings = {id(model.get_input_embeddings().weight)} - layers
    sizes = {
        id(value): value.numel()
        for value in model.parameters()
        if value.ndim >= 2 and id(value) not in embeddings
    }
    return sum(size for one, size in sizes.items() if one in layers) / sum(sizes.values())


EXPORTER = TorchExporter()
