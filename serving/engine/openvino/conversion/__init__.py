"""Hugging Face causal LM -> OpenVINO IR with a stateful KV cache, without optimum-intel.

``attention.py`` and ``cache.py`` make the model's KV cache explicit, ``tracing.py`` turns it into a
graph, ``stateful.py`` moves the cache into the graph's state, ``compression.py`` packs the weights and
``convert.py`` does all of it. Nothing here runs inside Triton.
"""
