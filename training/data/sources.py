"""What ``data.train`` and ``data.eval`` name -> the files to read: files, folders, data sets of the hub.

A folder, as a data set's download is one, may hold several splits. Files are told apart by the words in their
names, as the ``datasets`` library does it
(https://huggingface.co/docs/datasets/repository_structure): ``train-00000-of-00002.parquet``,
``data/validation.jsonl``, ``test/part.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from checkpoints.errors import DataError
from training.data.files import SUFFIXES, kind_of
from training.data.hub import download, is_hub_path

__all__ = ["Split", "resolve_files"]

Split = Literal["train", "eval", "decontamination"]

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_TAKEN: dict[str, tuple[str, ...]] = {"train": ("train",), "eval": ("validation", "test")}
"""The splits that serve, the first that is there."""
_NO_ROWS = {"dataset_infos.json", "dataset_dict.json", "state.json"}


def resolve_files(entries: Iterable[Path], split: Split) -> list[Path]:
    """Return the files that ``entries`` stand for, in the order given, those of a folder by name.

    Raises:
        DataError: nothing is there, or it is named twice; a folder has no file of the split, several kinds or
            files in several folders; or the hub does not give a data set.
    """
    files: list[Path] = []
    for entry in entries:
        if is_hub_path(entry):
            downloaded = download(entry, SUFFIXES)
            files += [downloaded] if downloaded.is_file() else _of_folder(downloaded, split)
        elif entry.is_dir():
            files += _of_folder(entry, split)
        elif entry.exists():
            files.append(entry)
        else:
            raise DataError(
                f"{entry} cannot be read: there is no such file or folder; a data set of the hub is "
                "hf://datasets/OWNER/NAME"
            )
    seen = set[Path]()
    for path in files:
        if path.absolute() in seen:
            raise DataError(f"{path} is named twice; name each file once")
        seen.add(path.absolute())
    return files


def _of_folder(folder: Path, split: Split) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if _may_have_rows(path, folder)]
    named = {path: split_of(path.relative_to(folder)) for path in found}
    if split == "decontamination":
        # Whatever a model may be evaluated on; the same rows twice do no harm here.
        chosen = [path for path in found if named[path] in ("validation", "test")]
        chosen = chosen or [path for path in found if named[path] is None]
        if not chosen:
            raise DataError(
                f"{folder} has no file to evaluate on ({', '.join(SUFFIXES)}); "
                f"it has {_listed([str(path.relative_to(folder)) for path in found])}"
            )
        return chosen
    taken = [path for path in found if named[path] is None]
    for name in _TAKEN[split]:
        of_name = [path for path in found if named[path] == name]
        if of_name:
            taken = of_name
            break
    else:
        # Without names everything is for training; a file with another split's name never is.
        taken = taken if split == "train" else []
    if not taken:
        wanted = " or ".join(_TAKEN[split])
        raise DataError(
            f"{folder} has no file for {wanted} ({', '.join(SUFFIXES)}); "
            f"it has {_listed([str(path.relative_to(folder)) for path in found])}"
        )
    folders = sorted({str(path.parent.relative_to(folder)) for path in taken})
    if len(folders) > 1:
        raise DataError(
            f"{folder} has rows in several folders ({_listed(folders)}), different subsets as a rule; "
            "name those to use"
        )
    kinds = sorted({kind_of(path) for path in taken})
    if len(kinds) > 1:
        raise DataError(
            f"{folder} has files of several kinds ({', '.join(kinds)}), which may hold the same rows; "
            "name the files to use"
        )
    return taken


def split_of(path: Path) -> str | None:
    """Return the split that a word in the name of the file, or else of its folders, stands for."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        for name, spellings in _WORDS.items():
            if any(word in spellings for word in words):
                return name
    return None


def _may_have_rows(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder)
    hidden = any(part.startswith((".", "_")) for part in inside.parts)
    return kind_of(path) in SUFFIXES and path.is_file() and not hidden and path.name not in _NO_ROWS


def _listed(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more
