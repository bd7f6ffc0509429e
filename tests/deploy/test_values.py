"""Every value is documented, is in the schema, and changes what is rendered."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.deploy.helm_tool import CHART, Helm, value_sets

SCRIPT = CHART.parent / "render_readme.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_readme", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["render_readme"] = module
    spec.loader.exec_module(module)
    return module


render_readme = load_script()
VALUES = render_readme.read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
LEAVES = {".".join(value.path): value for value in VALUES if not value.section}

# The value set in which a value counts, by the longest prefix that fits; "" is none.
SETS = {
    "": "", "model.copy": "gpu", "model.copy.fromImage": "multi-gpu-keda", "model.image": "jobs",
    "model.verify": "", "replicas": "", "gpu": "gpu", "probes.liveness.failureThreshold": "cpu",
    "autoscaling.cpu": "cpu", "autoscaling.minReplicas": "cpu", "autoscaling.maxReplicas": "cpu",
    "autoscaling.scaleDownSeconds": "cpu", "autoscaling.metrics": "everything",
    "autoscaling.keda": "multi-gpu-keda", "front": "everything", "ingress": "cpu",
    "httpRoute": "multi-gpu-keda", "networkPolicy": "cpu",
    "networkPolicy.routedByAnotherRelease": "gpu", "podMonitor": "cpu", "loadtest": "jobs",
    "loadtest.distributed": "everything", "training": "everything",
}  # fmt: skip
BY_ACCELERATE = {"launcher": "accelerate", "accelerateConfig": "/data/fsdp2.yaml"}
# What to set where a guess by type does not do. A dict may hold several values that only go together.
CHANGES: dict[str, Any] = {
    "autoscaling.keda.serverAddress": "http://other:9090",
    "autoscaling.mode": {"autoscaling": {"mode": "cpu", "cpu": {"utilization": 50}}},
    "front.paths": ["/v9"],
    "httpRoute.enabled": {"httpRoute": {"enabled": False, "canary": {"serviceName": "", "weight": 0}}},
    "httpRoute.parentRefs": [{"name": "other"}],
    "image.digest": "sha256:" + "a" * 64,
    "ingress.nginx": False,
    "loadtest.duration": "9m",
    "loadtest.url": "http://other:8000",
    "loadtest.distributed.locustfile": "/other.py",
    "model.copy.fromClaim": "other",
    "model.copy.fromImage": "other:1",
    "model.pvc.accessMode": "ReadWriteMany",
    "model.source": {"model": {"source": "copy", "copy": {"fromClaim": "other"}}},
    "networkPolicy.egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    "podDisruptionBudget.maxUnavailable": 2,
    "podMonitor.interval": "99s",
    "probes.liveness.check": "model",
    "serviceAccount.create": False,
    "topologySpread.node": "DoNotSchedule",
    "topologySpread.zone": "DoNotSchedule",
    "training.accelerateConfig": {"training": BY_ACCELERATE},
    "training.launcher": {"training": BY_ACCELERATE},
    "training.egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
}
# Explained by the section above them.
RESOURCES = (".requests", ".limits")
# Values that allow something and render nothing: test_refusals holds them.
PERMISSIONS = {"model.image.featureGate"}


def value_set(path: str) -> str:
    return SETS[max((prefix for prefix in SETS if path.startswith(prefix)), key=len)]


def schema_of(path: str) -> dict[str, Any]:
    node = SCHEMA
    for name in path.split("."):
        node = node["properties"][name]
    return node


def changed(path: str, current: Any) -> Any:
    """Return another value for a leaf, as a tree of values."""
    if path in CHANGES:
        value = CHANGES[path]
        if isinstance(value, dict):
            return value
    elif "enum" in (schema := schema_of(path)):
        value = next(choice for choice in schema["enum"] if choice != current)
    elif isinstance(current, bool):
        value = not current
    elif isinstance(current, int):
        value = current + 1
    elif "sizeLimit" in path.rpartition(".")[2] or path.endswith("SizeLimit"):
        value = "7Gi"
    elif isinstance(current, str):
        value = "changed"
    elif isinstance(current, list):
        text = schema_of(path)["items"]["type"] == "string"
        value = [*current, "changed" if text else {"name": "changed", "key": "changed"}]
    else:
        value = {**current, "changed": "1"}
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


@cache
def unchanged(helm: Helm, name: str) -> str:
    return helm.template(*(["--values", value_sets()[name]] if name else []))


def lookup(path: str, tree: dict[str, Any], default: Any) -> Any:
    node: Any = tree
    for name in path.split("."):
        if not isinstance(node, dict) or name not in node:
            return default
        node = node[name]
    return node


@pytest.mark.parametrize("path", sorted(LEAVES.keys() - PERMISSIONS))
def test_a_value_is_documented_and_used(helm: Helm, tmp_path: Path, path: str) -> None:
    leaf = LEAVES[path]
    assert leaf.comment or path.endswith(RESOURCES), f"{path} has no comment in values.yaml"
    assert "type" in (node := schema_of(path)) or "anyOf" in node
    name = value_set(path)
    base = ["--values", str(value_sets()[name])] if name else []
    given = yaml.safe_load(value_sets()[name].read_text(encoding="utf-8")) if name else {}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(changed(path, lookup(path, given, leaf.default))), encoding="utf-8")
    after = helm.template(*base, "--values", other)
    assert unchanged(helm, name) != after, f"{path} changes nothing that is rendered"


def test_schema_and_values_have_the_same_keys() -> None:
    def keys(node: dict[str, Any], prefix: str = "") -> set[str]:
        assert node["additionalProperties"] is False, f"{prefix} takes unknown keys"
        found: set[str] = set()
        for name, child in node["properties"].items():
            assert child["description"] or f"{prefix}{name}".endswith(RESOURCES), f"{prefix}{name}"
            if "properties" in child:
                found |= keys(child, f"{prefix}{name}.")
            else:
                found.add(f"{prefix}{name}")
        return found

    # "global" comes from helm when a chart is a part of another.
    assert keys(SCHEMA) == {*LEAVES, "global"}


def test_readme_and_descriptions_follow_from_the_values() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_comments_belong_to_the_key_below() -> None:
    text = "# About a.\n# More.\na:\n  # About b.\n  b: 1\n  c: [x]\n# About d.\nd:\n  - # no key\n    e: 1\n"
    found = {
        ".".join(value.path): (value.comment, value.default) for value in render_readme.read_values(text)
    }
    assert found == {
        "a": ("About a. More.", {"b": 1, "c": ["x"]}),
        "a.b": ("About b.", 1),
        "a.c": ("", ["x"]),
        "d": ("About d.", [{"e": 1}]),
    }


@pytest.mark.parametrize("text", ["2026-05-01", "0123", "true", "1e3", "no", "1.10"])
def test_texts_stay_texts(helm: Helm, tmp_path: Path, text: str) -> None:
    """A folder named by a date, a claim named by a number: YAML would read something else."""
    values = tmp_path / "values.yaml"
    model = {"source": "copy", "revision": text, "copy": {"fromClaim": "a" + text, "fromPath": text}}
    service = {
        "image": {"tag": text, "pullSecrets": [text]},
        "priorityClassName": text,
        "nodeSelector": {"a": text},
    }
    values.write_text(json.dumps({"model": model, **service}), encoding="utf-8")
    (deployment,) = [item for item in helm.manifests("--values", values) if item["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["annotations"]["trimaran/model-revision"] == text
    assert pod["initContainers"][0]["volumeMounts"][1]["subPath"] == text
    assert pod["containers"][0]["image"].endswith(f":{text}")
    assert pod["imagePullSecrets"] == [{"name": text}]
    assert pod["priorityClassName"] == text
    assert pod["nodeSelector"] == {"a": text}


def test_large_numbers_stay_whole(helm: Helm) -> None:
    """OpenShift's user ids: helm reads numbers as floats and would write 1.00065e+09."""
    text = helm.template("--set", "podSecurity.runAsUser=1000650000,podSecurity.fsGroup=1000650000")
    assert "runAsUser: 1000650000\n" in text
    assert "fsGroup: 1000650000\n" in text
    assert "runAsUser" not in helm.template("--set", "podSecurity.runAsUser=0")
