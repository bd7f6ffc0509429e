"""Data sets of the Hugging Face hub: ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER or /FILE]``.

That is how the hub's own client, pandas and Polars write them. A revision may be a reference with slashes
(``@refs/convert/parquet``, ``@refs/pr/7``); in the name of a branch they are written %2F. Files are
downloaded once, into the client's cache; rows are then read from there like any file's.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from checkpoints.errors import DataError

__all__ = ["download", "is_hub_path", "parse_hub_path"]

_SHAPE = re.compile(
    r"hf:/{1,2}datasets/(?P<id>[\w.-]+/[\w.-]+)"
    r"(@(?P<revision>refs/convert/\w+|refs/pr/\d+|[^/]+))?(/(?P<inside>.+))?",
    re.ASCII,
)


def is_hub_path(path: Path) -> bool:
    """Whether ``path`` is a data set's address (a ``Path`` writes it with one slash less)."""
    return path.parts[:1] == ("hf:",)


def parse_hub_path(path: Path) -> tuple[str, str | None, str]:
    """Return (``OWNER/NAME``, the revision or None, what is named inside it or "").

    Raises:
        DataError: it is not such an address.
    """
    match = _SHAPE.fullmatch(path.as_posix())
    if match is None:
        raise DataError(
            f"{path} is no address of a data set; expected hf://datasets/OWNER/NAME, or "
            "hf://datasets/OWNER/NAME@REVISION/FOLDER"
        )
    revision = match["revision"]
    return match["id"], revision and urllib.parse.unquote(revision), match["inside"] or ""


def download(path: Path, suffixes: Sequence[str]) -> Path:
    """Download the files of a data set, or find them in the cache; return the folder or file ``path`` names.

    Args:
        path: its address.
        suffixes: which files, by the ends of their names.

    Raises:
        DataError: the hub does not give it and the cache does not have it, or nothing is at that place in it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it uses

    name, revision, inside = parse_hub_path(path)
    # A file, or a folder of files; `*` also matches a slash.
    patterns = [inside, *(f"{inside}/*{end}" for end in suffixes)] if inside else [f"*{e}" for e in suffixes]
    try:
        root = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns)
    except (OSError, ValueError, HTTPError) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError(
            f"hf://datasets/{name} is not in the cache, and the hub does not give it (offline, misspelt, or "
            "private or gated without a login). Where there is a network: hf download --repo-type dataset "
            f"{name} --local-dir DIR; then name DIR. The hub client says: {said}"
        ) from error
    found = Path(root) / inside
    if not found.exists():
        raise DataError(f"hf://datasets/{name} has nothing that is read at {inside}")
    return found
