"""Every way in which an answer can go wrong gets its own name, over every protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loadtests.failures import FAILURE_KINDS
from tests.loadtests import script
from tests.loadtests.conftest import ROOT

# What a protocol cannot show: a unary answer has no stream to break, gRPC frames cannot be garbled or a page,
# and OpenAI's API has no ids, only the server's own count.
CANNOT = {
    "generate": ("erring",),
    "generate_stream": (),
    "grpc": ("garbled", "redirecting", "proxied"),
    "infer": ("erring",),
    "openai_chat": ("no_ids", "miscounting"),
}


def expected(protocol: str) -> dict[str, str]:
    return {model: kind for model, kind in script.FAILING.items() if model not in CANNOT[protocol]}


@pytest.fixture(scope="module")
def sorting(http_url: str, grpc_url: str) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each protocol that asks every model; all at once, since they mostly wait."""
    running = {}
    for protocol in CANNOT:
        url = grpc_url if protocol == "grpc" else http_url
        command = [sys.executable, "-m", "tests.loadtests.sort_failures", url, protocol, "llm"]
        running[protocol] = subprocess.Popen(
            [*command, *expected(protocol)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


@pytest.mark.locust
@pytest.mark.parametrize("protocol", CANNOT)
def test_a_failed_request_is_sorted_by_kind(protocol: str, sorting: dict[str, subprocess.Popen[str]]) -> None:
    out, err = sorting[protocol].communicate(timeout=60)
    assert sorting[protocol].returncode == 0, err
    found = json.loads(out)
    assert {model: kind for model, (kind, _) in found.items()} == {"llm": None, **expected(protocol)}
    assert all(detail for model, (_, detail) in found.items() if model != "llm")


def test_the_kinds_of_the_script_are_kinds_of_the_report() -> None:
    assert set(script.FAILING.values()) <= set(FAILURE_KINDS)
