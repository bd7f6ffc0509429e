"""Program: send one request to each model named, print {model: [failure kind, detail]} as JSON."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from gevent.event import Event  # noqa: E402

from loadtests.config import LoadTestConfig  # noqa: E402
from loadtests.load import make_load  # noqa: E402
from loadtests.record import read_records  # noqa: E402


def main(url: str, protocol: str, models: list[str]) -> None:
    """Run a load of one request per model."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "requests.jsonl"
        for model in models:
            config = LoadTestConfig(
                url=url, protocol=protocol, model=model, users=1, max_requests=1, request_timeout="400ms"
            )
            make_load(config, path, lambda event: None, Event())
            (record,) = read_records(path)
            found[model] = (record.failure, record.detail)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
