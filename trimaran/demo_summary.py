"""The demo's one table: what each hand-off cost and how the endpoints did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints.manifest import manifest_sha256, read_manifest
from trimaran.demo_stages import Endpoint

__all__ = ["render_summary"]

Table = list[tuple[str, ...]]


def render_summary(
    base: Path,
    adapter: Path,
    merged: Path,
    nf4: Path,
    losses: Mapping[str, float],
    endpoints: Sequence[Endpoint],
) -> str:
    """Return the table as text.

    Args:
        base: sealed checkpoint.
        adapter: made from ``base``.
        merged: made from ``adapter``.
        nf4: made from ``merged``.
        losses: held-out loss by manifest hash.
        endpoints: those that serve ``merged`` and ``nf4``.
    """
    checkpoints: Table = [
        ("checkpoint", "held-out loss", "size", "bytes/parameter", "fidelity to the stage before")
    ]
    for name, path in (
        ("base", base),
        ("adapter", adapter),
        (f"merged {read_manifest(merged).dtype}", merged),
        ("NF4", nf4),
    ):
        manifest = read_manifest(path)
        loss = losses.get(manifest_sha256(path))
        checkpoints.append(
            (
                name,
                f"{loss:.3f}" if loss is not None else "-",
                f"{_size(path) / 1e6:.1f} MB",
                "-" if name == "adapter" else f"{manifest.bytes_per_parameter:.2f}",
                _fidelity(manifest.metrics.get("fidelity")),
            )
        )
    served: Table = [
        (
            "endpoint",
            "engine",
            "TTFT p50",
            "TTFT p95",
            "ITL p50",
            "tokens/s",
            "requests",
            "failures",
            "text = generate",
        )
    ]
    served += [_endpoint(one) for one in endpoints]
    return "\n".join([*_lines(checkpoints), "", *_lines(served)])


def _endpoint(endpoint: Endpoint) -> tuple[str, ...]:
    results = endpoint.results
    greedy = endpoint.greedy
    verdict = "yes" if greedy.passed else f"NO, {greedy.different} differ"
    return (
        endpoint.name,
        endpoint.engine,
        _milliseconds(results, "ttft", "p50"),
        _milliseconds(results, "ttft", "p95"),
        _milliseconds(results, "itl", "p50"),
        f"{results['totals']['output_tokens_per_second']['value'] or 0:.1f}",
        str(results["requests"]["ok"]),
        str(results["requests"]["failed"]),
        f"{verdict} ({greedy.compared} tokens, {greedy.close_calls} near ties)",
    )


def _milliseconds(results: Mapping[str, Any], metric: str, statistic: str) -> str:
    summary = results["metrics"][metric]
    return "-" if summary is None else f"{summary[statistic] / 1e6:.0f} ms"


def _fidelity(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return "-"
    text = (
        f"KL {figures['mean_kl']:.4f}, top-1 {100 * figures['top1_agreement']:.1f}%, "
        f"perplexity x{figures['perplexity_ratio']:.3f}"
    )
    retention = figures.get("adapter_retention")
    return text if retention is None else f"{text}, adapter kept {100 * retention:.0f}%"


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _lines(table: Table) -> Iterable[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for index, row in enumerate(table):
        cells = zip(row, widths, strict=True)
        yield "  ".join(cell.ljust(width) for cell, width in cells).rstrip()
        if index == 0:
            yield "  ".join("-" * width for width in widths)
