"""In-flight batching over a fixed number of slots, for any model that computes rows of a KV cache.

``engine.py`` implements the engine contract; ``scheduler.py`` decides who is in which slot,
``runner.py`` is what a model must offer, ``sampler.py`` chooses tokens, ``penalties.py`` counts
them. ``engine/torch`` and ``engine/onnx`` bring the runners.
"""
