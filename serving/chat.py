"""``trimaran chat``: a conversation with a served model in the terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

from checkpoints.errors import RequestError, ServerError
from serving.client import Message, TritonClient
from serving.config import ChatConfig

__all__ = ["chat"]

_HELP = "/reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer"


def chat(config: ChatConfig, *, stdin: TextIO | None = None, stdout: TextIO | None = None) -> None:
    """Talk until the input ends; where it is no terminal, all of it is one message.

    Raises:
        ServerError: nobody answers at ``config.url``, or the server fails.
        RequestError: input that is no terminal holds a request the model refuses.
    """
    source, sink = stdin or sys.stdin, stdout or sys.stdout
    history = [Message(role="system", content=config.system)] if config.system else []
    with TritonClient(config.url, model=config.model) as client:
        if not source.isatty():
            if text := source.read().strip():
                _answer(client, config, [*history, Message(role="user", content=text)], sink)
            return
        if not client.ready():
            raise ServerError(
                f"model {config.model!r} is not ready at {config.url}; is `trimaran serve` running?"
            )
        sink.write(f"{config.model} at {config.url}. {_HELP}\n")
        _converse(client, config, history, source, sink)


def _converse(
    client: TritonClient, config: ChatConfig, history: list[Message], source: TextIO, sink: TextIO
) -> None:
    opening = list(history)
    while True:
        try:
            line = _read_line(source, sink)
        except (EOFError, KeyboardInterrupt):
            sink.write("\n")
            return
        if line in ("/exit", "/quit"):
            return
        if line == "/reset":
            history = list(opening)
            sink.write("forgotten\n")
        elif line.startswith("/"):
            sink.write(f"unknown command {line}; {_HELP}\n")
        elif line:
            turn = [*history, Message(role="user", content=line)]
            try:
                text = _answer(client, config, turn, sink)
            except RequestError as error:
                sink.write(f"refused: {error}\n")
                continue
            history = [*turn, Message(role="assistant", content=text)] if text else history


def _answer(client: TritonClient, config: ChatConfig, turn: list[Message], sink: TextIO) -> str:
    """Stream the answer to ``sink`` and return its text; Ctrl-C keeps what came so far."""
    parts: list[str] = []
    with client.stream(
        messages=turn,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        seed=config.seed,
    ) as stream:
        try:
            for chunk in stream:
                parts.append(chunk.text)
                sink.write(chunk.text)
                sink.flush()
        except KeyboardInterrupt:
            sink.write(" [stopped]")
    sink.write("\n")
    sink.flush()
    return "".join(parts)


def _read_line(source: TextIO, sink: TextIO) -> str:
    if source is sys.stdin:
        # Line editing and history, where Python has them.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        return input("> ").strip()
    sink.write("> ")
    sink.flush()
    line = source.readline()
    if not line:
        raise EOFError
    return line.strip()
