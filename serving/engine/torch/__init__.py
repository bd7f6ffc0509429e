"""The portable engine: any Hugging Face causal LM through its own modelling code.

``engine.py`` implements the contract; ``scheduler.py`` decides who is in which slot,
``kv_cache.py`` holds their keys and values, ``runner.py`` runs the model over them,
``sampler.py`` chooses tokens, ``penalties.py`` counts them, ``loading.py`` builds it all from an
exported version.
"""
