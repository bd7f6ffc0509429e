"""The fast engine on x86-64 and Arm CPUs: OpenVINO GenAI's continuous batching.

``conversion/`` brings a Hugging Face causal LM into OpenVINO's form at export; ``exporting.py`` says
what is served and in which precisions, ``architectures.py`` which models. ``engine.py`` drives the
pipeline: ``requests.py`` says which requests it takes, ``generation.py`` puts them in GenAI's words,
``pipeline.py`` sets it up from ``engine.json`` and ``loading.py`` joins them. GenAI's ``step`` holds
Python's global lock, so the engine runs in a process of its own (``engine/process``). ``logits.py``
computes a whole text, to measure fidelity.
"""
