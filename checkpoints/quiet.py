"""transformers without its chatter: its INFO lines always off, its bars only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import modeling_gguf_pytorch_utils as gguf_reader
from transformers.utils import logging

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Show only transformers' errors, and no progress bar where stderr is not a terminal."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    gguf_bar = gguf_reader.tqdm
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
        # The GGUF reader takes tqdm itself and asks nobody.
        gguf_reader.tqdm = _no_bar
    try:
        yield
    finally:
        logging.set_verbosity(level)
        gguf_reader.tqdm = gguf_bar
        if bars:
            logging.enable_progress_bar()


def _no_bar(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items
