"""A folder that helm can install: the chart, and values.yaml with what the model needs."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from checkpoints.errors import DeployError
from trimaran.deploy.assets import CHART, find_assets
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.folder import MARK, output_folder
from trimaran.deploy.sizing import Sizing
from trimaran.deploy.values import Value, render_values

__all__ = ["check_values", "next_commands", "write_helm"]

logger = logging.getLogger(__name__)

_CHART_FOLDER = "trimaran"
_LONGEST_RELEASE = 26
"""The chart appends "-trimaran" and takes names of up to 35 characters."""


def write_helm(config: DeployConfig, sizing: Sizing) -> Path:
    """Write ``values.yaml`` and the chart beside it; return the folder.

    Raises:
        DeployError: the chart refuses the values, or the folder exists.
        CheckpointError: it cannot be written.
    """
    chart = find_assets() / CHART
    defaults = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    text = _header(config, sizing) + render_values(_values(config, sizing), defaults)
    check_values(yaml.safe_load(text) or {}, chart)
    with output_folder(config) as folder:
        shutil.copytree(chart, folder / _CHART_FOLDER)
        (folder / "values.yaml").write_text(text, encoding="utf-8")
    return config.folder


def next_commands(config: DeployConfig, sizing: Sizing) -> list[str]:
    """Return what to run next."""
    folder, release = config.folder, _release(config.model)
    chart, values = folder / _CHART_FOLDER, folder / "values.yaml"
    checkpoint = f"/models/{config.model}/{sizing.version}/checkpoint"
    timeout = config.start_seconds // 60 + 5
    image = (
        []
        if config.image is not None
        else [f"# set image.repository in {values} to where your registry holds the image (or give --image)"]
    )
    return [
        *image,
        "# copy the repository onto the claim trimaran-models by a pod with it: docs/kubernetes.md, 2.",
        f"kubectl cp {config.repository}/. loader:/models",
        f"kubectl exec loader -- trimaran inspect {checkpoint} --verify",
        f"helm upgrade --install {release} {chart} --values {values} --wait --timeout {timeout}m",
        f"helm test {release}",
    ]


def check_values(values: dict[str, Any], chart: Path) -> None:
    """Hold values against the chart's schema, where the package jsonschema is installed.

    Raises:
        DeployError: the schema refuses one; the message names it.
    """
    if importlib.util.find_spec("jsonschema") is None:
        logger.warning("values.yaml was not checked: jsonschema is not installed (helm checks it, too)")
        return
    import jsonschema

    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    errors = sorted(jsonschema.Draft7Validator(schema).iter_errors(values), key=lambda one: list(one.path))
    if errors:
        first = errors[0]
        raise DeployError(
            f"the chart refuses {'.'.join(map(str, first.path)) or 'the values'}: {first.message}"
        )


def _header(config: DeployConfig, sizing: Sizing) -> str:
    engine = sizing.engine
    return (
        f"{MARK} helm` for {config.model} version {sizing.version}: what differs from trimaran/values.yaml.\n"
        f"# {engine.engine}, {engine.weights} weights, {engine.slots} slots of {engine.max_context} tokens.\n"
    )


def _values(config: DeployConfig, sizing: Sizing) -> list[Value]:
    engine = sizing.engine
    threads = (
        f"engine.json: threads {engine.threads}" if engine.threads else "as many as each instance has CPUs"
    )
    cpus = "--cpus" if config.cpus else sizing.cpu_reason
    memory = f"{sizing.memory_gib}Gi"
    return [
        *_image(config.image, gpu=sizing.gpus > 0),
        Value(("model", "name"), config.model, "--model"),
        Value(
            ("model", "revision"),
            f"{config.model}-{sizing.version}",
            "The version that the sizes below are for. Another text here replaces the pods one by one.",
        ),
        Value(("server", "threads"), sizing.threads, threads),
        Value(("server", "startSeconds"), config.start_seconds, "--start-seconds"),
        Value(("server", "longestRequestSeconds"), config.longest_request, "--longest-request"),
        Value(("resources", "requests", "cpu"), str(sizing.cpus), cpus),
        Value(("resources", "requests", "memory"), memory, sizing.memory_reason),
        Value(("resources", "limits", "cpu"), str(sizing.cpus), "As requested: the math threads follow it."),
        Value(("resources", "limits", "memory"), memory, "As requested."),
        Value(("gpu", "count"), sizing.gpus, "--gpus, or the instance group of config.pbtxt"),
        Value(
            ("shm", "sizeLimit"),
            f"{sizing.shm_gib}Gi",
            "256 MiB per instance and version, at least 1 GiB; part of the memory above",
        ),
    ]


def _image(image: str | None, *, gpu: bool) -> list[Value]:
    if image is None:
        reason = "Replace the registry by yours. The model is served on GPUs."
        name = f"registry.example.com/trimaran/serve-{'gpu' if gpu else 'cpu'}"
        return [Value(("image", "repository"), name, reason)]
    name, _, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # a colon before a slash belongs to the registry's port
        repository, tag = name, ""
    found = [Value(("image", "repository"), repository, "--image")]
    if tag:
        found.append(Value(("image", "tag"), tag, "--image"))
    if digest:
        found.append(Value(("image", "digest"), digest, "--image"))
    return found


def _release(model: str) -> str:
    """Return a name that helm takes for a release."""
    name = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return name[:_LONGEST_RELEASE].strip("-") or "llm"
