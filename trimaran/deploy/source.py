"""What the labels of an image say of the source that it is built from."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["source_labels"]


def source_labels(clone: Path) -> dict[str, str]:
    """Return compose.yaml's variables for the labels of an image that is built from ``clone``.

    The commit and its time; nothing where ``clone`` is no git repository or git is not installed. The address
    of the repository is not among them: what git calls its remote may hold a password.
    """
    if _git(clone, "rev-parse", "--show-prefix") != "":  # not a repository, or a folder of another one
        return {}
    commit, created = _git(clone, "rev-parse", "--verify", "HEAD"), _git(clone, "show", "-s", "--format=%cI")
    if not commit or not created:
        return {}
    changed = _git(clone, "status", "--porcelain", "--untracked-files=no")
    return {
        "TRIMARAN_REVISION": f"{commit}-dirty" if changed else commit,
        "TRIMARAN_CREATED": created,
    }


def _git(clone: Path, *arguments: str) -> str | None:
    """Return what git says, None if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(clone), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
