"""What loading libraries raise, as one line a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from checkpoints.errors import CheckpointError, TrimaranError
from checkpoints.sources import describe_source

__all__ = ["as_checkpoint_error", "some"]


@contextmanager
def as_checkpoint_error(source: str | Path, what: str = "") -> Iterator[None]:
    """Turn what loading ``source`` raises into CheckpointError with cause and remedy.

    Args:
        source: what is being loaded.
        what: goes in front of it in the message ("the tokenizer of ").
    """
    try:
        yield
    except TrimaranError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        text = str(error).strip()
        if "trust_remote_code" in text:
            message = (
                f"{source} comes with its own Python code. Read it; if you trust it, allow it by name: "
                "--trust-remote-code (trust_remote_code=True)"
            )
        elif describe_source(source).kind == "hub":
            message = (
                f"could not load {what}{source}: it is no directory here, and the hub does not give it "
                "(offline, misspelt, or a private model without a login). "
                f"Give a local directory or check the name. The hub client says: {_first_line(text)}"
            )
        else:
            message = f"could not load {what}{source}: {_first_line(text) or type(error).__name__}"
        raise CheckpointError(message) from error


def some(names: list[str], limit: int = 4) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
