"""Values for the chart: what differs from its defaults, with the reason beside each."""

from __future__ import annotations

from pathlib import Path

from checkpoints.atomic import atomic_directory
from trimaran.deploy.assets import copy_assets
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.sizing import Sizing

__all__ = ["commands", "write_helm"]

CHART = "deploy/helm/trimaran"


def write_helm(config: DeployConfig, sizing: Sizing) -> Path:
    """Write ``values.yaml`` and the chart beside it; return the folder.

    Raises:
        CheckpointError: it exists already, or cannot be written.
    """
    with atomic_directory(config.folder, replace=config.overwrite) as folder:
        copy_assets([CHART], folder)
        (folder / "values.yaml").write_text(_values(config, sizing), encoding="utf-8")
    return config.folder


def commands(config: DeployConfig, sizing: Sizing) -> list[str]:
    """Return what to run next."""
    folder = config.folder
    return [
        f"# copy {config.repository} onto the claim trimaran-models (docs/kubernetes.md), then",
        f"helm upgrade --install {config.model.replace('_', '-')} {folder / CHART} "
        f"--values {folder / 'values.yaml'} --wait",
    ]


def _values(config: DeployConfig, sizing: Sizing) -> str:
    repository, _, tag = (config.image or "").partition("@")[0].rpartition(":")
    image = ""
    if config.image is not None and "@" in config.image:
        name, _, digest = config.image.partition("@")
        image = f'image:\n  repository: "{name}"\n  digest: "{digest}"\n'
    elif config.image is not None:
        # A colon before a slash belongs to the registry's port.
        name, version = (repository, tag) if repository and "/" not in tag else (config.image, "")
        image = f'image:\n  repository: "{name}"\n  tag: "{version}"\n'
    gpu = (
        f"gpu:\n  # The model's instances ask for GPUs (config.pbtxt).\n  count: {sizing.gpus}\n"
        if sizing.gpus
        else ""
    )
    memory, engine = f"{sizing.memory_gib}Gi", sizing.engine
    return f"""# Written by `trimaran deploy helm` for {config.model} version {sizing.version}.
# {engine.engine} {engine.weights}, {engine.slots} slots of {engine.max_context} tokens.
{image}model:
  name: "{config.model}"
server:
  # The longest request you allow; --exit-timeout and the grace period follow from it.
  longestRequestSeconds: {config.longest_request}
  # {"As exported." if engine.threads else "The CPUs below."}
  threads: {max(1, sizing.cpus // sizing.instances)}
resources:
  # Weights {sizing.weight_bytes / 1e6:,.0f} MB, KV cache {sizing.kv_bytes / 1e6:,.0f} MB and runtime \
{sizing.runtime_bytes / 1e6:,.0f} MB of {sizing.instances} instance(s), a margin, and shared memory.
  requests:
    cpu: "{sizing.cpus}"
    memory: {memory}
  limits:
    cpu: "{sizing.cpus}"
    memory: {memory}
shm:
  sizeLimit: {sizing.shm_gib}Gi
{gpu}"""
