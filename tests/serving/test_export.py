"""Export writes a version whole or not at all, and never changes what is there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import ExportError, ManifestError, UnsupportedCheckpoint
from checkpoints.manifest import manifest_sha256, read_manifest, seal
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.torch.cpu_features import computes_bf16
from serving.export import export
from serving.repository import find_models, find_versions

ROOT = Path(__file__).parents[2]
Make = Callable[..., Path]


def as_it_is(checkpoint: Path, repository: Path, **options: Any) -> ExportConfig:
    """Settings of an export for the torch engine, which serves a checkpoint's own files."""
    return ExportConfig(checkpoint, repository, **{"engine": "torch", **options})


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies under ``folder``, with size and time of change: equal means untouched."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_version_holds_what_the_server_needs(make_checkpoint: Make, tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    version = export(as_it_is(checkpoint, tmp_path / "repository", slots=3, threads=2))

    assert version == tmp_path / "repository" / "llm" / "1"
    assert find_models(tmp_path / "repository") == ["llm", "llm_infer"]
    assert (version / "model.py").read_bytes() == (ROOT / "model_repository/llm/1/model.py").read_bytes()
    engine = EngineConfig.read(version / "engine.json")
    assert (engine.weights, engine.kv_dtype, engine.slots, engine.threads) == ("fp32", "fp32", 3, 2)
    assert engine.max_context == 128
    assert read_manifest(version / "checkpoint", verify=True) == read_manifest(checkpoint)
    assert manifest_sha256(version / "checkpoint") == manifest_sha256(checkpoint)
    weights = "model.safetensors"
    assert (version / "checkpoint" / weights).stat().st_ino == (checkpoint / weights).stat().st_ino
    infer = tmp_path / "repository" / "llm_infer"
    assert "TARGET_MODEL" in (infer / "config.pbtxt").read_text()
    assert (infer / "1" / "model.py").exists()


def test_the_next_version_leaves_the_first_untouched(make_checkpoint: Make, tmp_path: Path) -> None:
    config = as_it_is(make_checkpoint(), tmp_path / "repository")
    first = export(config)
    before = contents(tmp_path / "repository")
    second = export(config)
    after = contents(tmp_path / "repository")
    assert (first.name, second.name) == ("1", "2")
    assert {name: state for name, state in after.items() if not name.startswith("llm/2/")} == before


def test_a_version_can_be_chosen_but_not_twice(make_checkpoint: Make, tmp_path: Path) -> None:
    config = as_it_is(make_checkpoint(), tmp_path / "repository", version=7)
    assert export(config).name == "7"
    before = contents(tmp_path / "repository")
    with pytest.raises(
        ExportError, match=r"llm/7 exists and a version is never overwritten.*write version 8"
    ):
        export(config)
    config.version = 3
    with pytest.raises(ExportError, match=r"version 3 would not be served.*holds version 7"):
        export(config)
    assert contents(tmp_path / "repository") == before


def test_a_change_of_the_shared_config_is_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    export(as_it_is(make_checkpoint(), repository))
    before = contents(repository)
    with pytest.raises(ExportError, match=r"max_batch_size: 8 -> 4.*--name"):
        export(as_it_is(tmp_path / "checkpoint", repository, max_batch_size=4))
    with pytest.raises(ExportError, match=r"instance_group\[engine\]\.count: 1 -> 2"):
        export(as_it_is(tmp_path / "checkpoint", repository, instances=2))
    assert contents(repository) == before
    # What belongs to a version may change.
    assert export(as_it_is(tmp_path / "checkpoint", repository, slots=2)).name == "2"


def test_an_adapter_is_refused_with_the_remedy(make_checkpoint: Make, tmp_path: Path) -> None:
    adapter = make_checkpoint(kind="adapter", method="lora")
    with pytest.raises(ExportError, match=r"is an adapter.*trimaran merge"):
        export(as_it_is(adapter, tmp_path / "repository"))
    assert not (tmp_path / "repository").exists()


def test_remote_code_must_be_allowed_by_name(make_checkpoint: Make, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(remote_code=True)
    with pytest.raises(ExportError, match=r"--trust-remote-code"):
        export(as_it_is(checkpoint, tmp_path / "repository"))
    version = export(as_it_is(checkpoint, tmp_path / "repository", trust_remote_code=True))
    assert EngineConfig.read(version / "engine.json").trust_remote_code


def test_nf4_is_written_into_the_version(make_checkpoint: Make, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(kind="quantized", dtype="bf16", quantization={"method": "nf4"})
    engine = EngineConfig.read(export(as_it_is(checkpoint, tmp_path / "repository")) / "engine.json")
    assert (engine.weights, engine.kv_dtype) == ("nf4", "bf16" if computes_bf16() else "fp32")


@pytest.mark.parametrize(("asked", "expected"), [(None, 2048), (4096, 4096)])
def test_a_long_context_is_taken_only_when_asked_for(
    make_checkpoint: Make, tmp_path: Path, asked: int | None, expected: int
) -> None:
    config = as_it_is(make_checkpoint(max_context=8192), tmp_path / "repository", max_context=asked)
    assert EngineConfig.read(export(config) / "engine.json").max_context == expected


def test_more_context_than_the_checkpoint_has_is_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"max_context is 129, but .* at most 128"):
        export(as_it_is(make_checkpoint(), tmp_path / "repository", max_context=129))


def test_a_checkpoint_that_differs_from_its_manifest_is_refused(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint()
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(ManifestError, match=r"model\.safetensors"):
        export(as_it_is(checkpoint, tmp_path / "repository"))
    with pytest.raises(ManifestError, match=r"has no trimaran\.json"):
        export(as_it_is(tmp_path, tmp_path / "repository"))
    with pytest.raises(ExportError, match="is no directory"):
        export(as_it_is(tmp_path / "missing", tmp_path / "repository"))
    assert not (tmp_path / "repository").exists()


def test_an_architecture_the_engine_cannot_serve_is_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    settings = json.loads((checkpoint / "config.json").read_text())
    settings |= {"model_type": "bloom"}
    (checkpoint / "config.json").write_text(json.dumps(settings))
    seal(checkpoint, read_manifest(checkpoint))
    with pytest.raises(UnsupportedCheckpoint, match="bloom"):
        export(as_it_is(checkpoint, tmp_path / "repository"))


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system to which nothing can be hard-linked from ``tmp_path``."""
    shared_memory = Path("/dev/shm")
    if not os.access(shared_memory, os.W_OK) or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    folder = shared_memory / f"trimaran-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_another_file_system_gets_copies(make_checkpoint: Make, other_file_system: Path) -> None:
    version = export(as_it_is(make_checkpoint(), other_file_system / "repository"))
    assert read_manifest(version / "checkpoint", verify=True).files


def test_a_disk_that_takes_no_more_leaves_nothing(make_checkpoint: Make, other_file_system: Path) -> None:
    checkpoint, repository = make_checkpoint(), other_file_system / "repository"
    export(as_it_is(checkpoint, repository))
    before = contents(repository)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    half = (checkpoint / "model.safetensors").stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, hard))
    try:
        with pytest.raises(ExportError, match=r"could not write .*/llm/2: .*nothing was left there"):
            export(as_it_is(checkpoint, repository))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(repository) == before
    assert [path.name for path in (repository / "llm").iterdir() if path.name.startswith(".")] == []


# Each line on standard input starts an export that stands still just before its last file.
CUT = """
import os, sys, time
from pathlib import Path
from transformers import AutoConfig
import serving.version_checkpoint as module
from serving.config import ExportConfig
from serving.export import export
link = module.link
def slow(source, target):
    if target.name == "trimaran.json":
        print(os.getpid(), flush=True)
        time.sleep(60)
    link(source, target)
module.link = slow
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        export(ExportConfig(Path(sys.argv[1]), Path(sys.argv[2]), engine="torch"))
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def test_a_killed_export_leaves_nothing_visible_and_the_next_cleans_up(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    checkpoint, repository = make_checkpoint(), tmp_path / "repository"
    command = [sys.executable, "-c", CUT, str(checkpoint), str(repository)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as exporter:
        assert exporter.stdin is not None
        assert exporter.stdout is not None
        for versions in ([], [1]):
            exporter.stdin.write("export\n")
            exporter.stdin.flush()
            os.kill(int(exporter.stdout.readline()), signal.SIGKILL)
            assert exporter.stdout.readline() == "killed\n"
            assert find_versions(repository / "llm") == versions
            assert ("llm" in find_models(repository)) == bool(versions)
            export(as_it_is(checkpoint, repository))
            hidden = [path for folder in (repository, repository / "llm") for path in folder.glob(".*")]
            assert hidden == []
        exporter.stdin.close()
    assert find_versions(repository / "llm") == [1, 2]


def test_without_the_infer_model_when_it_is_not_wanted(make_checkpoint: Make, tmp_path: Path) -> None:
    export(as_it_is(make_checkpoint(), tmp_path / "repository", name="chat", infer_model=False))
    assert find_models(tmp_path / "repository") == ["chat"]
    assert 'name: "chat"' in (tmp_path / "repository" / "chat" / "config.pbtxt").read_text()
