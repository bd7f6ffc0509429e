"""What Triton loads: one folder per model, ``NAME/1/model.py`` for the Python backend.

``trimaran export`` copies a ``model.py`` into each version it writes.
"""
