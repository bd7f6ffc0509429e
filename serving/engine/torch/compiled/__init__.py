"""Computations of the torch engine on a CPU that Numba compiles for the machine at hand.

Each has a file for PyTorch's tensors and one for the compiled function: ``row_attention.py`` and
``row_kernel.py`` (one token in each of many rows), ``prompt_attention.py`` and ``prompt_kernel.py`` (many
tokens of one; ``prompt_blocks.py`` is a part of it), ``rotary.py`` and ``rotary_kernel.py``, ``program.py``,
which runs many kernels as one, and ``program_kernel.py``; linear layers are a folder of their own.
``layout.py`` and ``numbers.py`` have what kernels share, ``tile.py`` the product of a few rows with a
panel, and ``llvm.py`` what those share that are written as LLVM code. ``kernels.py`` finds them by name,
``keeping.py`` compiles them and keeps them from one start to the next, and ``openmp.py`` runs them on
PyTorch's own threads. Where Numba is not installed, or this machine or precision is not one of theirs,
PyTorch computes.
"""
