"""How transformers loads, saves and dequantizes a model whose experts are packed.

transformers picks a quantizer by the ``quant_method`` in ``config.json``; ours is bitsandbytes' for Linear
layers plus ``NF4Experts``. ``import checkpoints`` registers it. Without that, transformers refuses the
checkpoint: its packed weights have other shapes than the model's.

This module is imported while transformers itself may be half imported, so it takes from it only what cannot
be missing then, and the rest where it is used.
"""

from __future__ import annotations

from typing import Any

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import BitsAndBytesConfig, QuantizationMethod

from checkpoints.sources import NF4_METHOD

__all__ = ["NF4Config", "NF4Quantizer"]

_IMPLIED = ("load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit")
"""Settings that would make transformers take bitsandbytes' quantizer, which does not know experts."""


@register_quantization_config(NF4_METHOD)
class NF4Config(BitsAndBytesConfig):
    """NF4 of Linear layers and experts, with bitsandbytes' settings under bitsandbytes' names."""

    def __init__(self, **settings: Any) -> None:
        known = {name: value for name, value in settings.items() if name not in (*_IMPLIED, "quant_method")}
        super().__init__(load_in_4bit=True, **{"bnb_4bit_quant_type": "nf4", **known})
        self.quant_method = NF4_METHOD

    def to_dict(self) -> dict[str, Any]:
        """Return what ``config.json`` holds."""
        settings: dict[str, Any] = super().to_dict()
        return {name: value for name, value in settings.items() if name not in _IMPLIED}


@register_quantizer(NF4_METHOD)
class NF4Quantizer(Bnb4BitHfQuantizer):
    """bitsandbytes' quantizer, and fused experts become ``NF4Experts``."""

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Whether a weight of the checkpoint is to be packed while it is loaded."""
        from checkpoints.nf4_experts import NF4Experts

        module, name = get_module_from_name(model, param_name)
        if isinstance(module, NF4Experts):
            return module.expects_fused(name)
        return bool(super().param_needs_quantization(model, param_name, **kwargs))

    def get_quantize_ops(self) -> Any:
        """Return what packs a weight while it is loaded."""
        from checkpoints.nf4_operation import NF4Quantize

        return NF4Quantize(self)

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Put in the layers that will hold packed weights."""
        from transformers.integrations import replace_with_bnb_linear

        from checkpoints.nf4_experts import NF4Experts, fused_experts
        from checkpoints.nf4_routing import routing_layers

        # What transformers, PEFT and accelerate do for a bitsandbytes model goes for this one, too: casting
        # is refused, the Trainer does not move it.
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
        settings = self.quantization_config
        kept = self.get_modules_to_not_convert(
            model, settings.llm_int8_skip_modules, model._keep_in_fp32_modules, add_default_skips=True
        )
        self.modules_to_not_convert = [*kept, *routing_layers(model)]
        replace_with_bnb_linear(
            model,
            modules_to_not_convert=self.modules_to_not_convert,
            quantization_config=settings,
            pre_quantized=self.pre_quantized,
        )
        for name, fused in fused_experts(model).items():
            experts = NF4Experts(
                fused,
                compute_dtype=settings.bnb_4bit_compute_dtype,
                double_quantization=settings.bnb_4bit_use_double_quant,
            )
            if not self.pre_quantized:
                experts.expect_fused()
            model.set_submodule(name, experts)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        from checkpoints.nf4 import forget_unpacking, keep_plain_layout
        from checkpoints.nf4_experts import packed_experts

        for experts in packed_experts(model).values():
            # transformers lets every floating point tensor it loads ask for gradients, scales too.
            for name, parameter in experts.named_parameters():
                parameter.requires_grad_(experts.logical_count(name) is None and parameter.requires_grad)
        keep_plain_layout(model)
        forget_unpacking(model)
        return super()._process_model_after_weight_loading(model, **kwargs)

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        from checkpoints.nf4_experts import packed_experts

        model = super()._dequantize(model, dtype=dtype)
        for name, experts in packed_experts(model).items():
            model.set_submodule(name, experts.unpack(dtype or experts.compute_dtype))
        return model
