"""A checkpoint in each engine, as export would prepare it, and a way to drive an engine by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoints.manifest import read_manifest
from serving.engine.config import EngineConfig
from serving.engine.contract import Engine, Handle, TokenEvent
from serving.engine.registry import ENGINES, find_exporter, load_engine
from serving.engine.request import GenerationRequest

NAMES = sorted(ENGINES)


def build_engine(name: str, checkpoint: Path, folder: Path, **settings: Any) -> Engine:
    """Prepare ``checkpoint`` for the engine in ``folder``, as export does, and load it.

    ``folder`` is reused when it is there already.
    """
    exporter = find_exporter(name)
    missing = exporter.installed()
    if missing is not None:
        pytest.fail(f"engine {name} cannot be tested here: {missing}")
    manifest = read_manifest(checkpoint)
    weights = settings.pop("weights", None) or exporter.default_weights(manifest)
    config = EngineConfig(
        engine=name,
        weights=weights,
        kv_dtype=exporter.default_kv_dtype(manifest, weights),
        **{"slots": 4, "max_context": 128, "prefill_chunk": 16, "threads": 1, "device": "cpu", **settings},
    )
    if not exporter.converts:
        return load_engine(checkpoint, config, manifest)
    if not folder.exists():
        shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        exporter.convert(checkpoint, folder, config)
    return load_engine(folder, config, manifest)


def drive(
    engine: Engine,
    requests: list[GenerationRequest],
    *,
    arrives_at: Callable[[int], int] = lambda index: 0,
    cancel_at: dict[int, int] | None = None,
) -> list[list[TokenEvent]]:
    """Submit each request at its step, run to the end, and return the events of each.

    Args:
        engine: an engine with nothing to do.
        requests: what to submit.
        arrives_at: step of each request, by index; must not fall.
        cancel_at: step at which a request is cancelled, by index.
    """
    handles: list[Handle] = []
    events: dict[Handle, list[TokenEvent]] = {}
    step = 0
    while engine.has_work or len(handles) < len(requests):
        while len(handles) < len(requests) and arrives_at(len(handles)) <= step:
            handles.append(engine.submit(requests[len(handles)]))
            events[handles[-1]] = []
        for index, when in (cancel_at or {}).items():
            if when == step:
                engine.cancel(handles[index])
        for event in engine.step():
            events[event.handle].append(event)
        step += 1
        assert step < 20_000, "the engine does not come to an end"
    return [events[handle] for handle in handles]


def token_ids(events: list[TokenEvent]) -> list[int]:
    """All tokens of one request."""
    return [token for event in events for token in event.token_ids]


def finish(events: list[TokenEvent]) -> str | None:
    """Why the request ended; it must have ended exactly once, with its last event."""
    reasons = [event.finish for event in events if event.finish is not None]
    assert len(reasons) == 1
    assert events[-1].finish is not None
    return reasons[0]
