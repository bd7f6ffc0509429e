"""``trimaran-locust``: Locust with the packaged locustfile, wherever that was installed."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """Run ``locust -f <our locustfile>`` with the arguments of this process."""
    sys.argv[1:1] = ["-f", str(Path(__file__).with_name("locustfile.py"))]
    from locust.main import main as locust  # patches the standard library for gevent

    locust()


if __name__ == "__main__":
    main()
