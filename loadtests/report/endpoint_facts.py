"""What answered: server, model, engine, weights, checkpoint and batching, as rows of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.report.model_config import batching_text

__all__ = ["endpoint_facts"]

_MISSING = "–"
_HASH_DIGITS = 12


def endpoint_facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows (name, value). What the server does not tell is left out.

    Args:
        results: the content of ``results.json``; one of an earlier version knows no engines.
    """
    config, server = results["config"], results["server"]
    loaded = ", ".join(map(str, server.get("model_versions") or []))
    return [
        ("URL", config["url"]),
        ("Protocol", config["protocol"]),
        ("Model", f"{config['model']}, version {loaded or _MISSING}"),
        ("Server", f"{server.get('server') or 'unknown'} {server.get('server_version') or ''}".strip()),
        *(row for engine in results["server_metrics"].get("engines") or [] for row in _engine(engine)),
        *_config_facts(server.get("model_config")),
    ]


def _engine(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the rows of one engine, from the labels of ``trimaran_engine_info``."""
    context = facts.get("max_context", "")
    engine = [
        facts.get("engine"),
        (weights := facts.get("weights")) and f"{weights} weights",
        (kv := facts.get("kv_dtype")) and f"KV cache {kv}",
        f"context {int(context):,}" if context.isdecimal() else None,
    ]
    made_by = facts.get("trimaran")
    checkpoint = [facts.get("base"), facts.get("checkpoint"), made_by and f"exported by Trimaran {made_by}"]
    rows = [
        ("Engine", ", ".join(filter(None, engine))),
        ("Checkpoint", ", ".join(filter(None, checkpoint))),
        # The whole of it is in results.json; so much of it is unique among anybody's checkpoints.
        ("Manifest", f"sha256 {facts.get('manifest_sha256', '')[:_HASH_DIGITS]}".removesuffix("sha256 ")),
    ]
    return [row for row in rows if row[1]]


def _config_facts(config: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if config is None:
        return []
    groups = config.get("instance_group") or []
    instances = ", ".join(
        f"{group.get('count', 1)} on {str(group.get('kind', 'KIND_AUTO')).removeprefix('KIND_')}"
        for group in groups
    )
    return [
        ("Backend", str(config.get("backend") or config.get("platform") or _MISSING)),
        ("Batching", batching_text(config)),
        ("Instances", instances or _MISSING),
    ]
