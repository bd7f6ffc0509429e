"""``trimaran doctor`` on this machine, and on machines that lack something."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from trimaran import doctor_machine, doctor_software
from trimaran.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "cache"))


def test_json_has_every_check_with_a_remedy_where_one_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (0 if report["healthy"] else 1)
    names = [check["name"] for check in report["checks"]]
    assert names == [*doctor_machine.MACHINE_CHECKS, *doctor_software.SOFTWARE_CHECKS]
    for check in report["checks"]:
        assert check["found"]
        assert (check["status"] == "ok") == (check["remedy"] == ""), check
    facts = {check["name"]: check["data"] for check in report["checks"]}
    assert facts["cpu"]["cores"] >= 1
    assert facts["memory"]["total_bytes"] > 2**28
    assert facts["packages"]["torch"]


def test_table_ends_with_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["check", "found", "remedy"]
    assert "in place" in lines[-1] or lines[-1].startswith("failed: ")


def test_taken_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(doctor_machine, "TRITON_PORTS", (port,))
        taken = doctor_machine.ports("ports")
    assert taken.status == "warn"
    assert str(port) in taken.found
    assert "--http-port" in taken.remedy


def test_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `docker` program may be on PATH; what counts is whether an engine answers."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    found = doctor_machine.container_engine("container engine")
    assert found.status == "warn"
    assert "tcp://127.0.0.1:1" in found.found


def test_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "DISK_WANTED", 2**60)
    assert doctor_machine.disk("disk").status == "warn"


def test_tritonserver_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n", encoding="utf-8")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor_software.tritonserver("tritonserver").data == {"binary": str(binary), "bundled": False}


def test_nothing_that_could_serve_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "failed: tritonserver" in said
    assert "riscv64" in said


def test_check_that_breaks_does_not_end_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> None:
        raise OSError("no such thing here")

    monkeypatch.setitem(doctor_machine.MACHINE_CHECKS, "cpu", broken)
    main(["doctor", "--json"])
    first = json.loads(capsys.readouterr().out)["checks"][0]
    assert first["status"] == "warn"
    assert "no such thing here" in first["found"]


@pytest.mark.parametrize(("package", "extras"), [("onnxscript", ["onnx"]), ("peft", ["train", "serve"])])
def test_incomplete_extras_name_what_to_install(
    package: str, extras: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = doctor_software._version
    monkeypatch.setattr(doctor_software, "_version", lambda name: None if name == package else versions(name))
    found = doctor_software.extras("extras")
    assert found.status == "warn"
    for extra in extras:
        assert f"{extra} (no {package})" in found.found
    assert found.remedy == f"pip install 'trimaran[{','.join(extras)}]'"
