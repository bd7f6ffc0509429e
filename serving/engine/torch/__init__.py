"""The portable engine: any Hugging Face causal LM through its own modelling code.

``loading.py`` builds it from an exported version, ``exporting.py`` says what it serves and
``support.py`` which architectures. ``runner.py`` runs the model over the rows of ``kv_cache.py``
for the slot engine (``engine/slots``): ``plan.py`` says which rows and positions a pass computes,
``masks.py`` what they may see. ``preparation.py`` puts in the fast paths: ``attention.py``,
``decoder_layer.py``, ``joined_linear.py``, ``norms.py``, and ``products.py``, which chooses how linear
layers are computed: by ``compiled/``, by oneDNN (``packed_linear.py``) or by bitsandbytes
(``packed_nf4.py``). On a CPU ``decoder_stack.py`` runs a decode step of all layers as one compiled program
(``layer_calls.py`` says which calls it is), on one GPU ``cuda_graphs.py`` replays decode passes.
``precision.py`` loads the weights, ``int8_rounding.py`` rounds them to ``int8.py``'s layers,
``prefix_cache.py`` keeps the beginnings that prompts share and ``placement.py`` spreads a model over
several GPUs.
"""
