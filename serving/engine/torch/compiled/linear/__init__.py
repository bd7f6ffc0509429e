"""Linear layers on a CPU: ``layer.py``, with a layout and a kernel for each kind of weights.

=========  ===================  ==================  =======================================
weights    laid out by          kernel              innermost loop, as LLVM code
=========  ===================  ==================  =======================================
as stored  ``float_panels.py``  ``float_kernel.py`` ``../tile.py``
NF4        ``nf4_panels.py``    ``nf4_kernel.py``   ``nf4_unpack.py``, ``grouped_tile.py``
int8       ``int8_panels.py``   ``int8_kernel.py``  ``int8_rows.py``, ``grouped_tile.py``
=========  ===================  ==================  =======================================

``panels.py`` is the layout they share, ``tasks.py`` the way threads share the work, and ``parts.py`` what
stands before and after a product.
"""
