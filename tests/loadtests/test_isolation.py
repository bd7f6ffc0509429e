"""loadtests stands apart: no torch, none of our other packages; and the command line is never patched."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.loadtests.conftest import ROOT

OURS = {"trimaran", "training", "serving", "checkpoints", "evaluation", "model_repository"}
HEAVY = {"torch", "transformers"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level names in sys.modules of a fresh interpreter after ``statement``."""
    program = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement", ["import loadtests.run", "import loadtests.locustfile", "import loadtests.child"]
)
def test_nothing_of_ours_and_no_torch_is_imported(statement: str) -> None:
    loaded = modules_after(statement)
    assert "loadtests" in loaded
    assert loaded & (OURS | HEAVY) == set()


def test_the_command_line_is_not_patched_by_gevent() -> None:
    assert modules_after("import loadtests.run") & {"gevent", "locust", "grpc"} == set()


def test_the_settings_import_nothing_heavy() -> None:
    assert modules_after("import loadtests.config") & {"gevent", "locust", "grpc", "jinja2", "rich"} == set()
