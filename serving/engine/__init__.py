"""Engines that generate tokens with in-flight batching, behind one contract.

``request.py`` and ``contract.py`` say what an engine takes and gives. ``torch/``, ``openvino/`` and
``onnx/`` are engines, ``slots/`` is what torch and onnx share, ``process/`` runs any of them in a process
of its own. ``registry.py`` finds an engine by name, ``exporter.py`` is its part at export, ``warm_up.py``
its first tokens. ``rope.py`` and ``forward_pass.py`` serve several of them.

``loop.py`` runs an engine on a thread and ``delivery.py`` turns its tokens into text on another
(``text_stream.py``, ``detokenizer.py``, ``stop_words.py``), measuring as it goes (``observations.py``).
``config.py`` is ``engine.json``.
"""
