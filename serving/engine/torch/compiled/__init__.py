"""Computations of the torch engine on a CPU that Numba compiles for the machine at hand.

Each has a file for PyTorch's tensors and one for the compiled function: ``row_attention.py`` and
``row_kernel.py``, ``rotary.py`` and ``rotary_kernel.py``, ``program.py``, which runs many of them as one, and
``program_kernel.py``. Linear layers (``linear.py``) have a kernel for each kind of weights:

=========  =====================  ========================  =======================================
weights    laid out by            kernel                    innermost loop, as LLVM code (``llvm.py``)
=========  =====================  ========================  =======================================
as stored  ``float_panels.py``    ``linear_kernel.py``      ``tile.py``
NF4        ``nf4_panels.py``      ``nf4_linear_kernel.py``  ``nf4_unpack.py``, ``grouped_tile.py``
int8       ``int8_panels.py``     ``int8_linear_kernel.py`` ``int8_rows.py``, ``grouped_tile.py``
=========  =====================  ========================  =======================================

``panels.py`` and ``layout.py`` are the layout they share, ``linear_tasks.py`` the way threads share the
work, and ``linear_parts.py`` what stands before and after a product. ``numbers.py`` has what all kernels
share, ``kernels.py`` finds them by name, ``keeping.py`` compiles them and keeps them from one start to the
next, and ``openmp.py`` runs them on PyTorch's own threads. Where Numba is not installed, or this machine or
precision is not one of theirs, PyTorch computes.
"""
