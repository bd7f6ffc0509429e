"""The cores a process may use, and what the engines make of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from serving import cpus
from serving.cpus import THREADS_VARIABLE, available_cpus, engine_threads
from serving.engine.config import EngineConfig


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for name in (THREADS_VARIABLE, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("asked", "environment", "instances", "expected"),
    [
        (3, {THREADS_VARIABLE: "5", "OMP_NUM_THREADS": "6"}, 2, 3),  # the version's own number
        (None, {THREADS_VARIABLE: "5", "OMP_NUM_THREADS": "6"}, 2, 5),  # the server's, for each process
        (None, {"OMP_NUM_THREADS": "6,2"}, 2, 6),  # a tritonserver that is not started by us
        (None, {THREADS_VARIABLE: "auto", "OMP_NUM_THREADS": "8"}, 2, 4),
        (None, {}, 3, 2),
        (None, {}, 20, 1),
    ],
)
def test_an_engine_takes_what_is_asked_for_else_its_part_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    environment: dict[str, str],
    instances: int,
    expected: int,
) -> None:
    monkeypatch.setattr(cpus, "available_cpus", lambda: 8)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert engine_threads(asked, instances) == expected


class Loaded(Exception):
    """Raised where an engine would go on with the threads it has chosen."""


@pytest.fixture
def threads_after() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("exported", [None, 2])
@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_every_engine_follows_the_server_and_its_version(
    monkeypatch: pytest.MonkeyPatch, threads_after: None, engine: str, exported: int | None
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    config = EngineConfig(weights="fp32", kv_dtype="fp32", max_context=64, threads=exported)
    found = []

    def stop(*arguments: Any, **_: Any) -> None:
        if engine == "onnx":
            found.append(arguments[1].intra_op_num_threads)
        raise Loaded

    if engine == "torch":
        loading = import_module("serving.engine.torch.loading")
        monkeypatch.setattr(loading, "load_in_precision", stop)
        with pytest.raises(Loaded):
            loading.load_engine(Path(), config, None)
        found.append(torch.get_num_threads())
    elif engine == "openvino":
        properties = import_module("serving.engine.openvino.properties").compile_properties(config)
        found.append(properties["INFERENCE_NUM_THREADS"])
    else:
        monkeypatch.setattr(pytest.importorskip("onnxruntime"), "InferenceSession", stop)
        with pytest.raises(Exception):  # noqa: B017, PT011 - the session's own error, which names the file
            import_module("serving.engine.onnx.session").open_session(Path(), config.threads)
    assert found == [exported or 3]
