"""The ground floor: what a checkpoint is.

manifest   lineage and contract that travel with every checkpoint (``trimaran.json``)
loading    hub id, safetensors directory, ``.pt``/``.bin``, GGUF, NF4 or adapter -> model
tokenizer  its tokenizer
sources    which of these kinds a path is, and which files hold its weights
prompt     text or messages -> token ids, the same in training, evaluation and serving
tokens     which ids begin and end a text
architectures  models of our own, which transformers finds after ``import checkpoints``
nf4        what 4-bit NF4 packs and what it must refuse; nf4_experts packs the experts of a mixture,
           nf4_quantizer has transformers load them, nf4_report says what each weight takes
quantize   ``trimaran quantize``
prune_experts  ``trimaran prune-experts``
fidelity   how far a checkpoint drifted from the one it was made from
inspect    ``trimaran inspect``
gguf_header  one text out of a GGUF file's header
jsonl      rows of a JSONL file, with errors that name file and line
atomic     files and directories that appear whole or not at all
"""

from __future__ import annotations

from checkpoints.after_import import after_import
from checkpoints.architectures.registration import register_architectures


def _register_nf4() -> None:
    """Let plain ``from_pretrained`` read our NF4 checkpoints."""
    from checkpoints import nf4_quantizer  # noqa: F401


after_import("transformers.quantizers.auto", _register_nf4)
register_architectures()
