"""Tiny random models and a small real tokenizer, built in milliseconds.

The tokenizer is byte-level, so it encodes any text (Chinese and emoji take several tokens each,
which is what makes incremental detokenization interesting).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is the answer to this question?",
    "system user assistant Once upon a time there was a small ship on the sea.",
    "你好，世界。今天的天气很好。",
    "def add(a, b):\n    return a + b\n",
]


def build_tiny_tokenizer(
    *, vocabulary: int = 320, add_bos: bool = False, chat_template: str | None = CHATML
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with ChatML special tokens.

    Args:
        vocabulary: size with the special tokens; at least 260 (256 bytes and 4 special tokens).
        add_bos: whether plain text gets ``<s>`` in front, as Llama's tokenizer does.
        chat_template: Jinja source, or None for a base model's tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if add_bos:
        from tokenizers.processors import TemplateProcessing

        identifier = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", identifier)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if add_bos else "<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    fast.chat_template = chat_template
    return fast


def build_tiny_llama(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **config: Any) -> LlamaForCausalLM:
    """Return a random fp32 Llama (2 layers, hidden 64, grouped-query attention, tied embeddings).

    Hidden and intermediate sizes are multiples of 64, which NF4 on CPU needs.

    Args:
        tokenizer: gives the vocabulary size and the special ids.
        seed: of the weights; the caller's random state is left alone.
        config: overrides for ``LlamaConfig``.
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        # The default of 0.02 gives logits so flat that greedy decoding is decided by rounding.
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**settings, **config}))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval()


def save_tiny_llama(
    directory: Path,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """Save a tiny Llama with tokenizer and generation config to ``directory`` (no manifest)."""
    tokenizer = tokenizer or build_tiny_tokenizer()
    build_tiny_llama(tokenizer, seed=seed, **config).to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
