"""Which token ids begin and end a text, gathered from everywhere a checkpoint says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from checkpoints.manifest import TokenIds

__all__ = ["END_OF_TURN", "token_ids"]

END_OF_TURN = (
    "<|im_end|>",  # ChatML: Qwen, SmolLM2
    "<|eot_id|>",  # Llama 3
    "<|eom_id|>",  # Llama 3, tools
    "<|eot|>",  # Llama 4
    "<|end|>",  # Phi-3
    "<|return|>",  # gpt-oss
    "<end_of_turn>",  # Gemma
    "<|end_of_text|>",  # Granite
    "<|endoftext|>",
    "<|EOT|>",  # DeepSeek-Coder
    "<｜end▁of▁sentence｜>",  # DeepSeek
    "<|END_OF_TURN_TOKEN|>",  # Cohere
    "</s>",
)
"""Tokens that models end a turn with. One counts only where the chat template writes it."""


def token_ids(
    tokenizer: PreTrainedTokenizerBase, config: Any = None, generation_config: GenerationConfig | None = None
) -> TokenIds:
    """Gather the special ids of a checkpoint.

    ``eos`` is the union of what generation config, model config and tokenizer say, in that order;
    ``stop`` adds the end-of-turn tokens the chat template writes.
    """
    eos: list[int] = []
    for source in (generation_config, config, tokenizer):
        _extend(eos, getattr(source, "eos_token_id", None))
    stop = list(eos)
    template = _template_text(tokenizer)
    vocabulary = tokenizer.get_vocab()
    for token in END_OF_TURN:
        if token in template and token in vocabulary:
            _extend(stop, vocabulary[token])
    bos = tokenizer.bos_token_id
    plain = list(tokenizer.encode("a", add_special_tokens=False))
    full = list(tokenizer.encode("a", add_special_tokens=True))
    add_bos = bos is not None and full[:1] == [bos] and full != plain
    pad = tokenizer.pad_token_id
    return TokenIds(bos=_first(bos), eos=eos, pad=_first(pad), stop=stop, add_bos=add_bos)


def _template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several named templates
        return "\n".join(str(text) for text in template.values())
    return str(template or "")


def _extend(ids: list[int], value: int | Iterable[int] | None) -> None:
    values = [] if value is None else [value] if isinstance(value, int) else list(value)
    ids.extend(token for token in map(int, values) if token not in ids and token >= 0)


def _first(value: Any) -> int | None:
    ids: list[int] = []
    _extend(ids, value)
    return ids[0] if ids else None
