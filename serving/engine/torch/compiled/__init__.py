"""Computations of the torch engine on a CPU that Numba compiles for the machine at hand.

Each has a file for PyTorch's tensors and one for the compiled function: ``row_attention.py`` and
``row_kernel.py``, ``linear.py`` and ``linear_kernel.py``, whose innermost loop is LLVM code
(``tile.py``), ``rotary.py`` and ``rotary_kernel.py``. ``numbers.py`` has what the kernels share,
``keeping.py`` compiles them and keeps them from one start to the next, and ``openmp.py`` runs them on
PyTorch's own threads. Where Numba is not installed, or this machine or precision is not one of theirs,
PyTorch computes.
"""
