"""Which engine, weights and checkpoint answer, as our models say themselves (``trimaran_engine_info``)."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.server_metrics.snapshot import PENDING, Key

__all__ = ["engine_facts"]

_INFO = "trimaran_engine_info"


def engine_facts(values: Mapping[Key, float]) -> list[dict[str, str]]:
    """Return the labels of every engine that is loaded, each once however many servers have it.

    Args:
        values: one look at the metrics. Series of versions that were unloaded stay in it; those are left out.
    """
    loaded = {
        (key.endpoint, key.label("model"), key.label("version")) for key in values if key.name == PENDING
    }
    found: list[dict[str, str]] = []
    for key in values:
        place = (key.endpoint, key.label("model"), key.label("version"))
        facts = dict(key.labels)
        if key.name == _INFO and (not loaded or place in loaded) and facts not in found:
            found.append(facts)
    return found
