"""The ground floor: what a checkpoint is.

manifest   lineage and contract that travel with every checkpoint (``trimaran.json``)
loading    hub id, safetensors directory, ``.pt``/``.bin``, GGUF, NF4 or adapter -> model and tokenizer
sources    which of these kinds a path is, and which files hold its weights
prompt     text or messages -> token ids, the same in training, evaluation and serving
tokens     which ids begin and end a text
nf4        what 4-bit NF4 packs and what it must refuse; nf4_experts packs the experts of a mixture,
           nf4_quantizer has transformers load them, nf4_report says what each weight takes
quantize   ``trimaran quantize``
fidelity   how far a checkpoint drifted from the one it was made from
inspect    ``trimaran inspect``
gguf_header  one text out of a GGUF file's header
jsonl      rows of a JSONL file, with errors that name file and line
atomic     files and directories that appear whole or not at all
deferred   what ``import checkpoints`` has to do once transformers is imported
"""

from __future__ import annotations

from importlib import import_module

from checkpoints.deferred import after_import

# Plain ``from_pretrained`` reads our NF4 checkpoints from here on.
after_import("transformers.quantizers.auto", lambda: import_module("checkpoints.nf4_quantizer"))
