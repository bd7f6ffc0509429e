"""The rendered manifests of three value sets, kept in git so that a change of a template shows what it does.

``python -m tests.deploy.golden`` renews them; with a folder it writes the manifests of every value set for a
cluster there instead, for a checker of manifests.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.deploy.helm_tool import Helm, unpack_helm, value_sets

FOLDER = Path(__file__).with_name("golden")
SETS = ("cpu", "gpu", "multi-gpu-keda")


def render(helm: Helm, name: str) -> str:
    """Return the manifests of one value set; the oldest Kubernetes we support shows all fallbacks."""
    return helm.template("--values", value_sets()[name], kubernetes="1.28")


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        helm = unpack_helm(Path(folder))
        if not arguments:
            for name in SETS:
                (FOLDER / f"{name}.yaml").write_text(render(helm, name), encoding="utf-8")
            return
        target = Path(arguments[0])
        target.mkdir(parents=True, exist_ok=True)
        for name, values in value_sets().items():
            if name == "podman":  # no cluster: an image of this machine has neither registry nor digest
                continue
            (target / f"{name}.yaml").write_text(helm.template("--values", values), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
