"""A tiny sealed checkpoint, exported; and what a client without our code would send to it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from checkpoints.base import base_manifest
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import seal
from serving.config import ExportConfig
from serving.export import export
from serving.triton_server import TritonServer
from tests.tiny_models import save_tiny_llama


def sealed_llama(directory: Path, tokenizer: PreTrainedTokenizerFast, **config: Any) -> Path:
    """Save a tiny fp32 Llama with a context of 2,048 tokens and seal it."""
    save_tiny_llama(directory, tokenizer=tokenizer, **{"max_position_embeddings": 2048, **config})
    seal(directory, base_manifest(directory, load_model(directory), load_tokenizer(directory)))
    return directory


def exported(checkpoint: Path, repository: Path, **options: Any) -> Path:
    """Export for the torch engine with one math thread; return the version's directory."""
    return export(
        ExportConfig(
            checkpoint=checkpoint, repository=repository, **{"threads": 1, "engine": "torch", **options}
        )
    )


def post(url: str, body: Any, *, timeout: float = 60) -> tuple[int, dict[str, Any]]:
    """POST JSON (or bytes as they are) and return status and JSON answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=timeout) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def metric(metrics_url: str, name: str, **labels: str) -> float:
    """Return one Prometheus sample."""
    with urllib.request.urlopen(metrics_url, timeout=10) as response:
        for line in response.read().decode().splitlines():
            wanted = all(f'{key}="{value}"' in line for key, value in labels.items())
            if line.startswith(f"{name}{{") and wanted:
                return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name} with {labels}")


def wait_until_alive(server: TritonServer, name: str = "llm") -> None:
    """Wait for a look that finds nothing: Triton is ready a little before its metrics port is open."""
    deadline = time.monotonic() + 20
    while (reason := server.dead_reason(name)) is not None:
        assert time.monotonic() < deadline, reason
        time.sleep(0.05)
