"""HAProxy as docs/operations.md sets it up, before servers of a test."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

from serving.ports import listens
from tests.deploy.helm_tool import REPOSITORY

__all__ = ["post", "proxy"]


class Proxy:
    """HAProxy with the page's settings at one port, and at another one the same without retries."""

    def __init__(self, program: str, config: Path) -> None:
        self.process = subprocess.Popen([program, "-db", "-f", str(config)], stdin=subprocess.DEVNULL)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def proxy(program: str, folder: Path, servers: list[str], ports: list[int]) -> Proxy:
    text = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    (page,) = re.findall(r"^```\n(global\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for written, real in (
        ("127.0.0.1:8080", f"127.0.0.1:{ports[0]}"),
        ("127.0.0.1:8000", servers[0]),
        ("127.0.0.1:8010", servers[1]),
    ):
        assert written in page
        page = page.replace(written, real)
    bare = page[page.index("defaults\n") :]
    bare = re.sub(
        r"^ +(option redispatch|retries|retry-on|default-server|option httpchk|http-check).*\n",
        "",
        bare,
        flags=re.M,
    )
    bare = bare.replace(f":{ports[0]}", f":{ports[1]}").replace(" triton\n", " bare\n")
    bare = bare.replace("servers\n", "unchecked\n") + "    retries 0\n"
    config = folder / "haproxy.cfg"
    config.write_text(page + bare)
    started = Proxy(program, config)
    deadline = time.monotonic() + 20
    while not all(listens("127.0.0.1", port) for port in ports):
        assert started.process.poll() is None, "haproxy ended"
        assert time.monotonic() < deadline, "haproxy does not listen"
        time.sleep(0.05)
    return started


def post(port: int, text: str) -> str:
    body = json.dumps({"text_input": text}).encode()
    url = f"http://127.0.0.1:{port}/v2/models/llm/generate"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
        return str(json.load(answer)["text_output"])
