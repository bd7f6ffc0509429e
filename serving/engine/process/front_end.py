"""What the process that talks to Triton does without, when the engine runs in another."""

from __future__ import annotations

import os
import sys

__all__ = ["leave_out_torch"]


def leave_out_torch() -> None:
    """Make ``import torch`` fail from now on, so that transformers loads tokenizers without it.

    Importing it takes 170 MB and two seconds, and nothing here computes. Not for a tokenizer with Python code
    of its own, which may need it.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # None blocks an import
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say that there are no models
