"""Finding, installing and preparing Triton: what is said when it cannot be done."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path

import pytest

from checkpoints.errors import ServerError
from serving import triton_runtime
from serving.cache import cache_directory
from serving.cpus import THREADS_VARIABLE
from serving.ports import choose_ports
from serving.triton_install import TritonInstall, check_platform, find_triton
from serving.triton_log import last_line, port_was_taken, reason_of_failure
from serving.triton_runtime import libpython_directory, project_folders, runtime_layer, triton_environment


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRIMARAN_TRITON_WHEEL", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pip no place to find anything."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def left_in(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"]


def test_a_tritonserver_on_path_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    install = find_triton()
    assert install == TritonInstall(binary, None, (), bundled=False)
    # Its Python stub finds this environment's packages through the first python3 on PATH.
    environment = triton_environment(install, threads=2)
    assert environment["PATH"].split(":")[0] == str(Path(sys.prefix) / "bin")


@pytest.mark.parametrize(
    ("asked", "environment", "engine", "libraries"),
    [
        (2, "5", "2", "2"),  # the flag is nearer than the environment
        (None, "5", "5", "5"),
        (None, None, "auto", "3"),
    ],
)
def test_threads_are_what_was_asked_for_else_the_cores_there_are(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, environment: str | None, engine: str, libraries: str
) -> None:
    monkeypatch.setattr(triton_runtime, "available_cpus", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    install = TritonInstall(Path("tritonserver"), None, (), bundled=False)
    made = triton_environment(install, threads=asked)
    assert (made[THREADS_VARIABLE], made["OMP_NUM_THREADS"]) == (engine, libraries)


def test_offline_names_the_three_remedies(empty_cache: Path, offline: None) -> None:
    with pytest.raises(ServerError) as caught:
        find_triton()
    for remedy in ("TRIMARAN_TRITON_WHEEL", "tritonserver on PATH", "container"):
        assert remedy in str(caught.value)
    assert left_in(empty_cache) == []


def test_offline_numpy_layer_is_explained_and_not_left_half_made(empty_cache: Path, offline: None) -> None:
    with pytest.raises(
        ServerError, match=r"needs numpy==1\.26\.4, which pip could not install.*PIP_FIND_LINKS"
    ):
        runtime_layer()
    assert left_in(empty_cache) == []


def test_a_wheel_that_is_not_the_one_we_know_is_refused(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMARAN_TRITON_WHEEL", str(tmp_path / "missing.whl"))
    with pytest.raises(ServerError, match=r"missing\.whl: there is no such file"):
        find_triton()
    (tmp_path / "other.whl").write_bytes(b"something else")
    monkeypatch.setenv("TRIMARAN_TRITON_WHEEL", str(tmp_path / "other.whl"))
    with pytest.raises(ServerError, match="is not the wheel we know: sha256"):
        find_triton()
    assert left_in(empty_cache) == []


@pytest.mark.parametrize(
    ("system", "machine", "libc", "message"),
    [
        ("linux", "aarch64", ("glibc", "2.36"), "runs on Linux x86_64 only"),
        ("darwin", "x86_64", ("", ""), "runs on Linux x86_64 only"),
        ("linux", "x86_64", ("glibc", "2.31"), r"needs glibc 2\.35 or newer, this is glibc 2\.31"),
        ("linux", "x86_64", ("", ""), "this is no glibc"),
    ],
)
def test_other_platforms_are_told_where_to_go(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: tuple[str, str], message: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(ServerError, match=message) as caught:
        check_platform()
    assert "container image" in str(caught.value)


def test_a_static_python_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(ServerError, match=rf"has no {package}\.so\.1\.0.*{package}\).*--enable-shared"):
        libpython_directory()


def test_the_layer_sees_this_project(tmp_path: Path) -> None:
    folders = project_folders()
    assert any((Path(folder) / "serving").is_dir() for folder in folders)
    assert any((Path(folder) / "numpy").is_dir() for folder in folders)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRIMARAN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "trimaran"
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ServerError, match="set TRIMARAN_CACHE to a writable folder"):
        cache_directory()


def test_free_ports_differ() -> None:
    assert len(set(choose_ports("127.0.0.1", (0, 0, 0)))) == 3


# Lines as tritonserver 2.51.0 wrote them, paths shortened.
_STUB_DIED = """\
I1124 04:15:16.100000 9 model_lifecycle.cc:472] "loading: llm:1"
E1124 04:15:16.263402 9 model_lifecycle.cc:642] "failed to load 'llm' version 1: Internal: \
Stub process 'llm_0' is not healthy."
I1124 04:15:16.263460 9 model_lifecycle.cc:777] "failed to load 'llm'"
I1124 04:15:16.268629 9 server.cc:345] "Timeout 30: Found 0 live models"
error: creating server: Internal - failed to load all models
"""
_PORT = """\
E1124 04:15:16.263402 9 main.cc:200] "failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' \
already in use "
"""


def test_the_log_line_that_matters_is_found(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text(_STUB_DIED)
    assert reason_of_failure(log) == (
        "model 'llm' did not load: Internal: Stub process 'llm_0' is not healthy."
    )
    assert last_line(log) == "error: creating server: Internal - failed to load all models"
    assert not port_was_taken(log)
    log.write_text(_PORT)
    assert "already in use" in reason_of_failure(log)
    assert port_was_taken(log)
    log.write_text("")
    assert reason_of_failure(log) == "it said nothing"
    assert reason_of_failure(tmp_path / "missing") == "it said nothing"
