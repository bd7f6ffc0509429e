"""The portable engine: any Hugging Face causal LM through its own modelling code.

``runner.py`` runs the model over the rows of ``kv_cache.py`` for the slot engine
(``engine/slots``); ``loading.py`` builds it from an exported version, ``exporting.py`` says what
it serves and ``support.py`` which architectures.
"""
