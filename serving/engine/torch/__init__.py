"""The portable engine: any Hugging Face causal LM through its own modelling code.

``loading.py`` builds it from an exported version, ``exporting.py`` says what it serves and
``support.py`` which architectures. ``runner.py`` runs the model over the rows of ``kv_cache.py``
for the slot engine (``engine/slots``): ``plan.py`` says which rows and positions a pass computes,
``masks.py`` what they may see. ``preparation.py`` puts in the fast paths: ``attention.py``,
``packed_linear.py``, ``joined_linear.py``, ``norms.py``. Decode passes on a CPU attend by
``row_attention.py``, whose kernel (``row_kernel.py``) runs on PyTorch's own threads (``openmp.py``);
on one GPU ``cuda_graphs.py`` replays them. ``precision.py`` loads the weights, ``prefix_cache.py``
keeps the beginnings that prompts share and ``placement.py`` spreads a model over several GPUs.
"""
