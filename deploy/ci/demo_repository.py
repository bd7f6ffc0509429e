"""Export the demo's model, SmolLM2-135M-Instruct out of a PyPI package, for the deployment gate.

python -m deploy.ci.demo_repository out/gate
"""

from __future__ import annotations

import sys
from pathlib import Path

from serving.config import ExportConfig
from serving.export import export
from trimaran.demo_stages import make_base


def main() -> int:
    """Make the checkpoint and the model repository beside it."""
    if len(sys.argv) != 2:
        print("usage: python -m deploy.ci.demo_repository REPOSITORY", file=sys.stderr)
        return 2
    repository = Path(sys.argv[1])
    checkpoint = make_base(repository.with_name(f"{repository.name}-checkpoint"))
    version = export(
        ExportConfig(checkpoint=checkpoint, repository=repository, max_context=1024, infer_model=False)
    )
    print(f"model version: {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
