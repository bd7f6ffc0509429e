"""Folders and data sets of the hub: which files are read, and what is said where that is not clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints.errors import DataError
from tests.training.rows import write_jsonl
from training.data.hub import parse_hub_path
from training.data.sources import Split, resolve_files, split_of


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(root / name, [{"text": name}])
    return root


def names(root: Path, split: Split) -> list[str]:
    return [str(path.relative_to(root)) for path in resolve_files([root], split)]


def test_files_are_taken_in_the_order_given(tmp_path: Path) -> None:
    folder(tmp_path, "b.jsonl", "a.jsonl")
    files = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    assert resolve_files(files, "train") == files


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is named twice"):
        resolve_files([root, root / "a.jsonl"], "train")


def test_a_download_of_a_data_set_has_its_splits_told_apart(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "train-of-thought",  # the folder's own name says nothing
        "data/train-00001-of-00002.jsonl",
        "data/train-00000-of-00002.jsonl",
        "data/test-00000-of-00001.jsonl",
        "data/validation-00000-of-00001.jsonl",
        ".cache/train.jsonl",
        "dataset_infos.json",
    )
    assert names(root, "train") == ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]
    assert names(root, "eval") == ["data/validation-00000-of-00001.jsonl"]


def test_a_folder_without_names_of_splits_is_for_training(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "b.jsonl", "a.jsonl", "test.jsonl")
    assert names(root, "train") == ["a.jsonl", "b.jsonl"]
    assert names(root, "eval") == ["test.jsonl"]
    (root / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"no file for validation or test .*it has a\.jsonl, b\.jsonl"):
        names(root, "eval")


def test_all_that_a_model_may_be_evaluated_on_is_looked_for(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "train.jsonl", "validation.jsonl", "test.parquet")
    assert sorted(names(root, "decontamination")) == ["test.parquet", "validation.jsonl"]
    assert names(folder(tmp_path / "suites", "gsm8k.jsonl"), "decontamination") == ["gsm8k.jsonl"]
    with pytest.raises(DataError, match=r"no file to evaluate on .*it has train\.jsonl"):
        names(folder(tmp_path / "rows", "train.jsonl"), "decontamination")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.parquet", "train"),
        ("test/part-0.parquet", "test"),
        ("gsm8k_dev.jsonl", "validation"),
        ("latest.jsonl", None),
        ("constraints.jsonl", None),
    ],
)
def test_a_split_is_a_word_of_the_name(path: str, split: str | None) -> None:
    assert split_of(Path(path)) == split


def test_subsets_and_kinds_are_not_mixed(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "main/train.jsonl", "socratic/train.jsonl")
    with pytest.raises(DataError, match=r"several folders \(main, socratic\).*name those to use"):
        names(root, "train")
    other = folder(tmp_path / "other", "train.jsonl", "train.json")
    with pytest.raises(DataError, match=r"several kinds \(\.json, \.jsonl\).*name the files"):
        names(other, "train")
    packed = folder(tmp_path / "packed", "train.jsonl", "test.jsonl.gz", "train.jsonl.gz")
    with pytest.raises(DataError, match=r"several kinds \(\.jsonl, \.jsonl\.gz\)"):
        names(packed, "train")
    assert names(packed, "eval") == ["test.jsonl.gz"]


def test_nothing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"owner/name cannot be read: .*hf://datasets/OWNER/NAME"):
        resolve_files([Path("owner/name")], "train")


def test_an_address_of_the_hub() -> None:
    assert parse_hub_path(Path("hf://datasets/openai/gsm8k")) == ("openai/gsm8k", None, "")
    assert parse_hub_path(Path("hf://datasets/o/n@v1.0/main/x.parquet")) == ("o/n", "v1.0", "main/x.parquet")
    for revision in ("refs/convert/parquet", "refs/pr/7"):
        assert parse_hub_path(Path(f"hf://datasets/o/n@{revision}/main")) == ("o/n", revision, "main")
    assert parse_hub_path(Path("hf://datasets/o/n@my%2Fbranch/main")) == ("o/n", "my/branch", "main")
    with pytest.raises(DataError, match=r"expected hf://datasets/OWNER/NAME"):
        parse_hub_path(Path("hf://openai/gsm8k"))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub client's cache, as a download leaves it, with one data set of two subsets."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "datasets--owner--sums"
    folder(repository / "snapshots" / "c0ffee", "main/train.jsonl", "main/test.jsonl", "hard/train.jsonl")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    return repository / "snapshots" / "c0ffee"


def test_a_data_set_of_the_hub_is_read_from_the_cache(hub_cache: Path) -> None:
    assert resolve_files([Path("hf://datasets/owner/sums/main")], "train") == [hub_cache / "main/train.jsonl"]
    assert resolve_files([Path("hf://datasets/owner/sums/main")], "eval") == [hub_cache / "main/test.jsonl"]
    one = Path("hf://datasets/owner/sums/hard/train.jsonl")
    assert resolve_files([one], "train") == [hub_cache / "hard/train.jsonl"]
    with pytest.raises(DataError, match=r"several folders \(hard, main\)"):
        resolve_files([Path("hf://datasets/owner/sums")], "train")
    with pytest.raises(DataError, match=r"nothing that is read at other"):
        resolve_files([Path("hf://datasets/owner/sums/other")], "train")


def test_a_data_set_that_is_not_in_the_cache_says_how_to_get_it(hub_cache: Path) -> None:
    """The tests run with HF_HUB_OFFLINE=1: this is what a machine without a network says."""
    with pytest.raises(DataError, match=r"owner/other is not in the cache.*hf download --repo-type dataset"):
        resolve_files([Path("hf://datasets/owner/other")], "train")
