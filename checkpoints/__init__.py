"""The ground floor: what a checkpoint is.

manifest   lineage and contract that travel with every checkpoint (``trimaran.json``)
loading    hub id, safetensors directory, ``.pt``/``.bin``, GGUF, NF4 or adapter -> model and tokenizer
sources    which of these kinds a path is, and which files hold its weights
prompt     text or messages -> token ids, the same in training, evaluation and serving
tokens     which ids begin and end a text
architectures  models of our own, which transformers finds after ``import checkpoints``
nf4        what 4-bit NF4 packs, what it leaves in 16 bit, what it must refuse
quantize   ``trimaran quantize``
prune_experts  ``trimaran prune-experts``
fidelity   how far a checkpoint drifted from the one it was made from
inspect    ``trimaran inspect``
gguf_header  one text out of a GGUF file's header
jsonl      rows of a JSONL file, with errors that name file and line
atomic     files and directories that appear whole or not at all
"""

from checkpoints.architectures.registration import register_architectures

register_architectures()
