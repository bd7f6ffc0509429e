"""Ways to look into rendered manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>m|k|[KMGTPE]i|[MGTPE]|)")
_FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_FACTORS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)}


def parse_quantity(text: str | int | float) -> float:
    """Return the number that a Kubernetes quantity stands for.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    return float(found["number"]) * _FACTORS[found["unit"]]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Return the objects of these kinds."""
    return [item for item in manifests if item["kind"] in kinds]


def pod_templates(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield (kind/name, pod with metadata and spec) of everything that makes pods."""
    for item in manifests:
        where = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            yield where, item
        elif item["kind"] in ("Deployment", "Job"):
            yield where, item["spec"]["template"]
        elif item["kind"] == "TrainingRuntime":
            for job in item["spec"]["template"]["spec"]["replicatedJobs"]:
                yield where, job["template"]["spec"]["template"]


def containers(pod: Manifest) -> list[Manifest]:
    """Return all containers of a pod, init containers first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def matching_pods(manifests: list[Manifest], selector: dict[str, str]) -> list[Manifest]:
    """Return the pod templates that carry all these labels."""
    assert selector, "an empty selector selects everything"
    return [
        pod for _, pod in pod_templates(manifests) if selector.items() <= pod["metadata"]["labels"].items()
    ]


def port_names(pod: Manifest) -> set[str]:
    """Return the names of the ports of a pod."""
    return {port["name"] for one in containers(pod) for port in one.get("ports", [])}


def quantities(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that must be a quantity: resources and sizes of volumes."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in ("requests", "limits") and isinstance(item, dict):
                yield from ((f"{key}.{name}.{resource}", text) for resource, text in item.items())
            elif name == "sizeLimit":
                yield f"{key}.{name}", item
            else:
                yield from quantities(item, f"{key}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from quantities(item, f"{key}[{index}]")


def server_pod(manifests: list[Manifest]) -> Manifest:
    """Return the pod template of the Deployment."""
    pod: Manifest = of_kind(manifests, "Deployment")[0]["spec"]["template"]
    return pod


def flags(container: Manifest) -> dict[str, str]:
    """Return ``--name=value`` arguments as a mapping."""
    pairs = (argument.removeprefix("--").partition("=") for argument in container["args"])
    return {name: value for name, _, value in pairs}
