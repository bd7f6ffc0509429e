"""The program in an engine's own process: ``python -m serving.engine.process.worker FD``."""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection

from checkpoints.errors import RequestError, TrimaranError
from checkpoints.manifest import read_manifest
from serving.engine.contract import Engine, Handle, TokenEvent
from serving.engine.process.messages import Cancel, Load, LoadFailed, Ready, Stepped, Submit
from serving.engine.registry import load_engine

logger = logging.getLogger("trimaran.engine")


def main() -> None:
    """Serve the connection whose file descriptor is the only argument, until the other end closes it."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
    # A signal to the group is for the server, which drains and then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    try:
        _serve(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody is there any more


def _serve(connection: Connection) -> None:
    load = connection.recv()
    assert isinstance(load, Load)
    try:
        config = replace(load.config, own_process=False)
        engine = load_engine(load.checkpoint, config, read_manifest(load.checkpoint))
    except Exception as error:
        if isinstance(error, TrimaranError):
            connection.send(LoadFailed(str(error)))
        else:
            logger.exception("the engine could not be loaded")
            connection.send(LoadFailed(f"{type(error).__name__}: {error}"))
        return
    connection.send(Ready(engine.capacity))
    _Worker(connection, engine).run()


class _Worker:
    """Steps the engine while it has work, and listens in between."""

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._connection = connection
        self._engine = engine
        self._theirs: dict[Handle, Handle] = {}  # our handle -> the near end's
        self._ours: dict[Handle, Handle] = {}
        self._refused: list[TokenEvent] = []

    def run(self) -> None:
        """Run until the connection is closed."""
        while True:
            if not self._engine.has_work:
                self._take(self._connection.recv())
            while self._connection.poll():
                self._take(self._connection.recv())
            events, self._refused = self._refused, []
            if self._engine.has_work:
                events += [self._rename(event) for event in self._engine.step()]
            self._connection.send(Stepped(events, self._engine.counters))

    def _take(self, message: object) -> None:
        if isinstance(message, Submit):
            try:
                handle = self._engine.submit(message.request)
            except RequestError as error:
                self._refused.append(TokenEvent(message.handle, error=error))
            else:
                self._theirs[handle] = message.handle
                self._ours[message.handle] = handle
        elif isinstance(message, Cancel):
            handle_or_none = self._ours.pop(message.handle, None)
            if handle_or_none is not None:
                del self._theirs[handle_or_none]
                self._engine.cancel(handle_or_none)

    def _rename(self, event: TokenEvent) -> TokenEvent:
        theirs = self._theirs[event.handle]
        if event.finish is not None or event.error is not None:
            del self._theirs[event.handle]
            del self._ours[theirs]
        return replace(event, handle=theirs)


if __name__ == "__main__":
    main()
