"""Decoder and causal language model. Attention, norms and rotary embedding are Llama's own classes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from checkpoints.architectures.deepseek.configuration import DeepseekConfig
from checkpoints.architectures.deepseek.experts import DeepseekExperts
from checkpoints.architectures.deepseek.load_balance import load_balance_loss
from checkpoints.architectures.deepseek.mixture import DeepseekMoE
from checkpoints.architectures.deepseek.router import DeepseekTopkRouter

__all__ = ["DeepseekDecoderLayer", "DeepseekForCausalLM", "DeepseekModel", "DeepseekPreTrainedModel"]


class DeepseekDecoderLayer(LlamaDecoderLayer):
    """Llama's layer, with a mixture of experts where the config has one."""

    def __init__(self, config: DeepseekConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        if config.is_mixture(layer_idx):
            self.mlp = DeepseekMoE(config)


class DeepseekPreTrainedModel(LlamaPreTrainedModel):
    """Loading, saving and what transformers wants to know; SDPA, FlashAttention and caches as Llama's."""

    config_class = DeepseekConfig
    _no_split_modules: ClassVar[list[str]] = ["DeepseekDecoderLayer"]
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": DeepseekDecoderLayer,
        "attentions": LlamaAttention,
        "router_logits": OutputRecorder(DeepseekTopkRouter, index=0),
    }

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # transformers would look for the decorator in this file; the experts have it

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        deviation = self.config.initializer_range
        if isinstance(module, DeepseekExperts):
            init.normal_(module.gate_up_proj, mean=0.0, std=deviation)
            init.normal_(module.down_proj, mean=0.0, std=deviation)
        elif isinstance(module, DeepseekTopkRouter):
            init.normal_(module.weight, mean=0.0, std=deviation)


class DeepseekModel(DeepseekPreTrainedModel):
    """The decoder: token ids to hidden states."""

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(
            DeepseekDecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """Run the decoder; the arguments are those of every transformers decoder."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            positions = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen
            position_ids = positions.unsqueeze(0)
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids=position_ids)
        for layer in self.layers[: self.config.num_hidden_layers]:
            hidden_states = layer(
                hidden_states,
                attention_mask=causal_mask,
                position_embeddings=position_embeddings,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return MoeModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values
        )


class DeepseekForCausalLM(DeepseekPreTrainedModel, GenerationMixin):
    """The decoder with a language model head, and the balance loss while it trains."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__(config)
        self.model = DeepseekModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_router_logits: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Return logits, and with ``labels`` the loss.

        In training the loss holds ``aux_loss_alpha`` times the balance loss, which ``aux_loss`` gives
        without that factor.

        Raises:
            ValueError: gradient checkpointing would take the balance loss's gradient away.
        """
        if output_router_logits is None:
            output_router_logits = self.config.output_router_logits
        balances = self._balances(labels)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_router_logits=output_router_logits or balances,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = aux_loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
            if balances:
                aux_loss = self._balance_loss(outputs.router_logits, labels, attention_mask)
                share = _share_of_step(labels, kwargs.get("num_items_in_batch"))
                loss = loss + self.config.aux_loss_alpha * share * aux_loss.to(loss.device)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits if output_router_logits else None,
        )

    def _balances(self, labels: torch.Tensor | None) -> bool:
        """Whether this pass computes the balance loss."""
        config = self.config
        has_mixture = any(config.is_mixture(layer) for layer in range(config.num_hidden_layers))
        return bool(self.training and labels is not None and config.aux_loss_alpha > 0 and has_mixture)

    def _balance_loss(
        self, router_logits: tuple[torch.Tensor, ...], labels: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        if torch.is_grad_enabled() and not any(logits.requires_grad for logits in router_logits):
            routers = [module for module in self.modules() if isinstance(module, DeepseekTopkRouter)]
            if any(router.weight.requires_grad for router in routers):
                raise ValueError(
                    "gradient checkpointing with use_reentrant=True gives the routers no gradient of the "
                    "balance loss; use use_reentrant=False, or set aux_loss_alpha to 0"
                )
        usable = isinstance(mask, torch.Tensor) and mask.shape == labels.shape
        return load_balance_loss(
            router_logits,
            self.config.num_experts_per_tok,
            rows=labels.shape[0],
            per_sequence=self.config.seq_aux,
            mask=mask if usable else None,
        )


def _share_of_step(labels: torch.Tensor, items: torch.Tensor | int | None) -> torch.Tensor | float:
    """Return the part of an optimizer step's targets that are in this batch.

    With gradient accumulation the Trainer gives the targets of all its batches, and each batch's loss is
    its part of their mean. The balance loss is weighted the same, or it would count once per batch.
    """
    if items is None:
        return 1.0
    return (labels[:, 1:] != -100).sum() / items
