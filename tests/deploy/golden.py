"""The rendered manifests of three value sets, kept in git so that a change of a template shows what it does.

``python -m tests.deploy.golden`` renews them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.deploy.helm_tool import Helm, unpack_helm, value_sets

FOLDER = Path(__file__).with_name("golden")
SETS = ("cpu", "gpu", "multi-gpu-keda")


def render(helm: Helm, name: str) -> str:
    """Return the manifests of one value set; the oldest Kubernetes we support shows all fallbacks."""
    return helm.template("--values", value_sets()[name], kubernetes="1.28")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        helm = unpack_helm(Path(folder))
        for name in SETS:
            target = FOLDER / f"{name}.yaml"
            target.write_text(render(helm, name), encoding="utf-8")
            print(target)


if __name__ == "__main__":
    main()
