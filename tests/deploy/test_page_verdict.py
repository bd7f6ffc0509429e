"""docs/kubernetes.md: what waits for a load test's Job is run, with a kubectl that only pretends."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_docs import BLOCKS

# The Job has no condition at the first two looks, then those in the file.
KUBECTL = """#!/bin/sh
case "$*" in
    *" get job/llm-trimaran-loadtest-one "*)
        echo look >> looks
        [ -s conditions ] || { echo "not found" >&2; exit 1; }
        [ "$(wc -l < looks)" -lt 3 ] || cat conditions ;;
    *" logs job/llm-trimaran-loadtest-one") echo "the report" ;;
    *" wait --for=condition=Complete job/llm-trimaran-loadtest-one --timeout=0")
        grep -q Complete conditions ;;
    *) echo "unknown: $*" >&2; exit 9 ;;
esac
"""


@pytest.mark.parametrize(
    ("conditions", "passed", "looks"),
    [
        ("SuccessCriteriaMet Complete", True, 3),
        ("FailureTarget Failed", False, 3),
        ("", False, 1),  # somebody took the Job away
    ],
    ids=["passed", "failed", "gone"],
)
def test_it_ends_with_the_verdict_of_the_job(
    tmp_path: Path, conditions: str, passed: bool, looks: int
) -> None:
    (text,) = [text for kind, text in BLOCKS if kind == "sh" and "loadtest.run=one" in text]
    script = text[text.index("while ") :]
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, content in (("kubectl", KUBECTL), ("sleep", "#!/bin/sh\n")):
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    (tmp_path / "conditions").write_text(conditions)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode == 0) == passed, done.stderr
    assert done.stdout == "the report\n"
    assert len((tmp_path / "looks").read_text().splitlines()) == looks
