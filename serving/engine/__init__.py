"""Engines that generate tokens with in-flight batching, behind one contract.

``request.py`` and ``contract.py`` say what an engine takes and gives; ``torch/`` is an engine.
``loop.py`` runs any engine on a thread and turns its tokens into text (``text_stream.py``,
``detokenizer.py``, ``stop_words.py``). ``config.py`` is ``engine.json``; ``support.py`` says
which model architectures can be served.
"""
