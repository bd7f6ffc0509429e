"""``trimaran COMMAND ...``: picks a command, turns what happens into an exit code.

0 done; 1 a verdict failed; 2 the user's mistake, told in a line or two; 3 a bug of ours, its traceback
in a log file; 130 interrupted. Only the chosen command's modules are imported.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

from checkpoints.errors import TrimaranError
from trimaran.command_table import COMMANDS, Command, find_command

__all__ = ["main"]

LOG_LEVELS = ("debug", "info", "warning", "error")


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `trimaran inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _is_users_mistake(error):
            # Every rank of a node finds the same mistake, and torchrun ends the others when one is gone.
            # One that lives on is alone with its mistake.
            if not _speaks():
                time.sleep(5)
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 2
        log = _write_crash_log(arguments, error)
        print(f"internal error: {type(error).__name__}: {error}\ntraceback: {log}", file=sys.stderr)
        return 3


def _dispatch(arguments: list[str]) -> int:
    parser = _top_parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 2
    if chosen.command not in COMMANDS:
        close = difflib.get_close_matches(chosen.command, COMMANDS, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there is: {', '.join(COMMANDS)}"
        parser.error(f"unknown command {chosen.command!r}; {hint}")
    command, rest = find_command([chosen.command, *chosen.arguments])
    try:
        return _run(command, rest, chosen.log_level)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        print(
            f"error: `trimaran {command.name}` needs {error.name}, which is not installed\n"
            f"remedy: pip install 'trimaran[{command.extras}]'",
            file=sys.stderr,
        )
        logging.getLogger(__name__).debug("import failed", exc_info=error)
        return 2


_OURS = {"trimaran", "training", "evaluation", "checkpoints", "serving", "loadtests", "model_repository"}


def _run(command: Command, arguments: list[str], log_level: str) -> int:
    from trimaran import commands
    from trimaran.command_parser import parse_command

    config, later_level = parse_command(command, arguments)
    level = (later_level or log_level).upper() if _speaks() else "ERROR"
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # bitsandbytes looks for a CPU kernel on the Hugging Face Hub whenever it is imported, and warns.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    code: int = getattr(commands, command.function)(config)
    return code


class _TopParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\nhelp: trimaran --help\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        print(f"trimaran {_version()}")
        parser.exit()


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {row.name:{width}}  {row.summary}" for row in COMMANDS.values())
    parser = _TopParser(
        prog="trimaran",
        usage="trimaran [--log-level LEVEL] COMMAND ...",
        description="From a base checkpoint to a load-tested LLM endpoint.",
        epilog=f"commands:\n{listed}\n\n`trimaran COMMAND --help` explains one; "
        "every command takes `--config FILE.yaml`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--log-level", choices=LOG_LEVELS, default="warning", metavar="LEVEL",
        help="debug, info, warning or error, on stderr (default: warning)",
    )  # fmt: skip
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _version() -> str:
    import importlib.metadata  # 50 ms that `--help` need not pay

    try:
        return importlib.metadata.version("trimaran")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _speaks() -> bool:
    """Whether this process is the one of its node that tells the user, as torchrun numbers them."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _is_users_mistake(error: Exception) -> bool:
    # loadtests stands apart and has its own tree; it is loaded where it could have raised.
    load_test_errors = sys.modules.get("loadtests.errors")
    if load_test_errors is not None and isinstance(error, load_test_errors.LoadTestError):
        return True
    return isinstance(error, TrimaranError)


def _write_crash_log(arguments: list[str], error: Exception) -> Path:
    from serving.cache import cache_directory

    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    text = (
        f"trimaran {_version()}, Python {sys.version}\ncommand line: {arguments}\n\n"
        + "".join(traceback.format_exception(error))
    )  # fmt: skip
    try:
        folder = cache_directory() / "logs"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    except (OSError, TrimaranError):
        folder = Path(tempfile.gettempdir())
        (folder / name).write_text(text, encoding="utf-8")
    return folder / name


if __name__ == "__main__":
    sys.exit(main())
