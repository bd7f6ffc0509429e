"""A headless Chromium that lays out a page of ours, and says what is wrong with it."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

from tests.deploy.monitoring.tools import require

__all__ = ["MODES", "browse", "look"]

CHECKS = Path(__file__).with_name("page_checks.js").read_text(encoding="utf-8")
MODES = {"dark": 0, "light": 1}  # Blink's names of the two
BROWSER = "chromium-headless-shell"


def browse(page: Path, mode: str, width: int, *arguments: str) -> str:
    """Open a page and return what the browser prints."""
    command = [
        require(BROWSER), "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={MODES[mode]}", f"--window-size={width},6000",
        *arguments, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def look(page: Path, name: str, source: str, mode: str, width: int) -> dict[str, Any]:
    """Have the browser lay out ``source`` and return what ``page_checks.js`` finds."""
    checked = page.with_name(f"{name}-{mode}-{width}.html")
    checked.write_text(source.replace("</body>", f"<script>{CHECKS}</script></body>"), encoding="utf-8")
    document = browse(checked, mode, width, "--dump-dom")
    (text,) = re.findall(r'<pre id="problems">(.*?)</pre>', document, re.DOTALL)
    found: dict[str, Any] = json.loads(unescape(text))
    return found
