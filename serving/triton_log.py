"""Reading tritonserver's log: the last line while it loads, the line that matters when it failed."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["engine_failure", "last_line", "port_was_taken", "reason_of_failure"]

_PREFIX = re.compile(r"^[IWEF]\d{4} [\d:.]+ \d+ [\w.]+:\d+\] ")
_EXCEPTION = re.compile(
    r"\b(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Checkpoint|Interrupt|Exit)\b: ?.*"
)
_MODEL_FAILURE = re.compile(
    r"failed to load '(?P<model>[^']+)'(?: version (?P<version>\d+))?: (?P<why>.*)", re.S
)
_TAIL_BYTES = 65_536

_ENGINE_FAILED = re.compile(
    r"trimaran\.llm: (?:model (?P<model>\S+): )?(?P<why>the engine failed.*); unloading the model"
)
"""How a model says that its engine died (``model.py``, ``retire``); older versions do not name the model."""


def last_line(path: Path) -> str:
    """Return the last line that says something, without Triton's prefix; empty if there is none."""
    for line in reversed(_tail(path).splitlines()):
        text = _PREFIX.sub("", line).strip().strip('"')
        if text and text[0] not in "+|":
            return text
    return ""


def port_was_taken(path: Path) -> bool:
    """Return whether the server ended because another process had one of its ports."""
    return "already in use" in _tail(path).lower()


def engine_failure(path: Path, model: str) -> str | None:
    """Return what ``model`` said when its engine died and it unloaded itself, or None if it did not."""
    for line in reversed(_tail(path).splitlines()):
        failure = _ENGINE_FAILED.search(line)
        if failure is not None and failure["model"] in (None, model):
            return failure["why"]
    return None


def reason_of_failure(path: Path) -> str:
    """Return the line of the log that says why the server or a model failed.

    In this order: the Python exception of a model (with the place it was raised), Triton's
    ``failed to load`` message, the last error line, the last line.
    """
    lines = _tail(path).splitlines()
    for index, line in enumerate(lines):
        if (failure := _MODEL_FAILURE.search(line)) is None:
            continue
        # The message goes on in the next lines (a traceback) until the next prefixed one.
        more = []
        for following in lines[index + 1 :]:
            if _PREFIX.match(following):
                break
            more.append(following)
        return model_failure(failure["model"], "\n".join([failure["why"], *more]))
    errors = [line for line in lines if line.startswith(("E", "F")) and _PREFIX.match(line)]
    told = [line for line in lines if line.startswith("error: ")]
    best = (errors or told or [last_line(path)])[-1]
    return _PREFIX.sub("", best).strip().strip('"') or "it said nothing"


def model_failure(model: str, message: str) -> str:
    """Return one or two lines from Triton's message on a model that did not load."""
    message = message.replace("\\n", "\n").strip().strip('"')
    if exception := _EXCEPTION.search(message):
        reason = exception.group(0).strip()
    else:
        reason = message.splitlines()[0] if message else "no reason given"
    places = re.findall(r"^\s+(\S+\(\d+\): \S+)", message, re.M)
    where = f" (raised at {places[0]})" if places else ""
    return f"model {model!r} did not load: {reason}{where}"


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
