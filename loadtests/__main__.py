"""``python -m loadtests``: the process that makes the load (see ``child.py``)."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()  # before anything that opens a socket or a thread is imported

from loadtests.child import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
