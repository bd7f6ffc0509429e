"""Print what a Dockerfile installs before the project itself: the requirements of some of its extras.

    python3 requirements.py serve > requirements.txt

Dependencies then have a layer of their own, which a change of our code does not build again. An extra's
packages that only tools of a workstation need are left out by name: ``requirements.py serve -docker``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(arguments: list[str]) -> list[str]:
    """Return the requirement lines of the project and of the extras named, without those after a ``-``.

    Raises:
        SystemExit: there is no such extra.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    left_out = {name[1:] for name in arguments if name.startswith("-")}
    lines = [*project["dependencies"]]
    for name in arguments:
        if name.startswith("-"):
            continue
        if name not in extras:
            raise SystemExit(f"pyproject.toml has no extra {name!r}; it has {', '.join(extras)}")
        lines += extras[name]
    return [line for line in lines if re.split(r"[<>=!~\[ ;]", line, maxsplit=1)[0] not in left_out]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
