"""What is measured: one metric per file, its formula in the docstring (see ``metric.py``)."""
