"""What a Triton model repository holds."""

from __future__ import annotations

from pathlib import Path

from checkpoints.errors import ServerError

__all__ = ["find_models", "find_versions"]


def find_models(repository: Path) -> list[str]:
    """Return the models of a repository: folders with a ``config.pbtxt`` or a numbered version.

    Raises:
        ServerError: the repository is no directory.
    """
    if not repository.is_dir():
        raise ServerError(f"{repository} is no directory; `trimaran export` makes a model repository")
    return sorted(
        folder.name
        for folder in repository.iterdir()
        if folder.is_dir()
        and not folder.name.startswith(".")
        and ((folder / "config.pbtxt").exists() or find_versions(folder))
    )


def find_versions(model: Path) -> list[int]:
    """Return the versions in a model's folder, oldest first; folders that are no number do not count."""
    if not model.is_dir():
        return []
    return sorted(int(child.name) for child in model.iterdir() if child.name.isdigit() and child.is_dir())
