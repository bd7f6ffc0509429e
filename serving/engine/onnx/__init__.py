"""The ONNX engine: a decoder exported to ONNX, served by onnxruntime through the slots of ``engine/slots``.

At export, with numpy 2 and onnx: ``exporting.py`` is the entry and ``conversion.py`` the order of
work; ``graph.py`` turns the model into ONNX, with ``attention.py``, ``experts.py``, ``projection.py`` and
``fusions.py`` for the nodes it is made of, ``quantization.py`` packs its weights and
``verification.py`` holds it against torch. ``support.py`` lists the architectures.

Inside Triton, without onnx: ``loading.py`` builds the engine from ``runner.py`` and ``session.py``.
"""
