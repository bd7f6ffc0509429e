"""The command tree as a user meets it: help, mistakes, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints.errors import CheckpointError
from loadtests.errors import EndpointError
from trimaran import commands
from trimaran.cli import main
from trimaran.command_table import COMMANDS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for row in COMMANDS.values():
        assert f"  {row.name} " in listed
        assert row.summary in listed


def test_no_command_is_a_mistake_that_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trimaran 0.")


def test_unknown_command_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantise", "x"]) == 2
    assert "did you mean quantize?" in capsys.readouterr().err


def test_top_help_imports_nothing_heavy() -> None:
    done = python(
        "import sys; from trimaran.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'jsonargparse', 'rich', 'yaml', 'grpc', 'locust'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    assert done.returncode == 0, done.stderr


def test_help_of_no_command_imports_its_room() -> None:
    done = python(
        "import sys; from trimaran.cli import main; from trimaran.command_table import COMMANDS\n"
        "codes = [main([*name.split(), '--help']) for name in COMMANDS]\n"
        "heavy = {'torch', 'transformers', 'peft', 'matplotlib', 'locust', 'gevent', 'grpc', 'docker'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or max(codes))"
    )
    assert done.returncode == 0, done.stderr
    for row in COMMANDS.values():
        assert f"trimaran {row.name}" in done.stdout
        assert row.examples[0] in done.stdout


@pytest.mark.parametrize(
    "error", [CheckpointError("no weights in /x; name a checkpoint"), EndpointError("gone")]
)
def test_users_mistake_is_one_line_and_exit_2(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "doctor", _raises(error))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_bug_is_exit_3_with_its_traceback_in_a_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "doctor", _raises(ZeroDivisionError("a bug")))
    assert main(["doctor"]) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (log,) = (cache / "logs").glob("crash-*.log")
    assert str(log) in said
    text = log.read_text(encoding="utf-8")
    assert "ZeroDivisionError: a bug" in text
    assert "['doctor']" in text


def test_bug_is_told_where_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(commands, "doctor", _raises(ZeroDivisionError("a bug")))
    assert main(["doctor"]) == 3
    (log,) = tmp_path.glob("crash-*.log")
    assert str(log) in capsys.readouterr().err


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commands, "doctor", _raises(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_missing_package_names_the_extra(tmp_path: Path) -> None:
    done = python(
        "import sys; sys.modules['torch'] = None\n"
        "from trimaran.cli import main\n"
        f"sys.exit(main(['train', '--model', 'm', '--data.train', 'd', '--output', {str(tmp_path / 'o')!r}]))"
    )
    assert done.returncode == 2
    assert "needs torch" in done.stderr
    assert "pip install 'trimaran[train]'" in done.stderr


def test_reader_that_leaves_early_is_no_error() -> None:
    """``trimaran doctor | true``: no traceback on a closed pipe."""
    code = f"{sys.executable} -m trimaran doctor --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0


def _raises(error: BaseException) -> object:
    def command(config: object) -> int:
        raise error

    return command
