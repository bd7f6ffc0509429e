"""A config dataclass as a command line: options, YAML, help, and the checked instance.

Every field is an option (``--lora.target-modules`` for the field ``target_modules`` of the section
``lora``), and its docstring is the help. Fields named in ``POSITIONAL`` come first on the line. Types
are checked by jsonargparse, ranges by the dataclass itself.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from jsonargparse import ActionYesNo, ArgumentParser

from checkpoints.errors import ConfigError
from trimaran.command_fields import CommandField, choices, construct, walk_fields
from trimaran.command_table import Command, nested_commands
from trimaran.config_file import check_keys, find_config, read_config

__all__ = ["parse_command"]

LogLevel = Literal["debug", "info", "warning", "error"]
_LINE = "line_"  # the positional form of a field; the field itself stays an option, so YAML can set it


def parse_command(command: Command, arguments: list[str]) -> tuple[Any, str | None]:
    """Return the config instance of ``command`` for ``arguments``, and the ``--log-level`` given after it.

    Raises:
        ConfigError: an unknown key of a YAML file, or a value that the dataclass refuses.
        SystemExit: a wrong command line (2), or ``--help`` (0).
    """
    config_class = command.config_class()
    fields = list(walk_fields(config_class))
    parser = _build_parser(command, config_class, fields)
    arguments, parser.files = _prepare(arguments, fields)
    for path, content in parser.files:
        check_keys(content, config_class, path)
    values = parser.parse_args(arguments).as_flat().__dict__
    for field in fields:
        if field.positional and values[_LINE + field.name] is not None:
            values[field.name] = values[_LINE + field.name]
    missing = [field.spelled for field in fields if field.required and values[field.name] is None]
    if missing:
        parser.error(f"missing: {', '.join(missing)} (give it on the command line or in a --config file)")
    return construct(config_class, values), values.get("log_level")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **_: Any) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # jsonargparse gives every list a second option, `--name+`, that appends; it works, unlisted.
        shown = [option for option in action.option_strings if not option.endswith("+")]
        if action.nargs == 0 or not shown or isinstance(action, ActionYesNo):
            return ", ".join(shown) or super()._format_action_invocation(action)
        return f"{', '.join(shown)} {action.metavar}"


class _CommandParser(ArgumentParser):
    """jsonargparse's parser with errors in our words."""

    files: Sequence[tuple[Path, dict[str, Any]]] = ()
    fields: Mapping[str, CommandField] = {}
    command_name: str = ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        self.exit(2, f"error: {self._explain(message)}\nhelp: {self.prog} --help\n")

    def _explain(self, message: str) -> str:
        found = re.search(r'Parser key "([^"]+)":.*(?:Got|Given) value: (.*)', message, re.DOTALL)
        if found and (field := self.fields.get(found[1].removeprefix(_LINE))):
            value = found[2].strip()
            origin = "".join(f" (in {path})" for path, content in self.files if _holds(content, field, value))
            return f"{field.option}: expected {field.accepts}, got {value!r}{origin}"
        if found := re.match(r"unrecognized arguments: (\S+)", message, re.IGNORECASE):
            unknown = found[1].partition("=")[0]
            if not unknown.startswith("-"):
                nested = [row.name for row in nested_commands(self.command_name)]
                return f"unexpected argument {unknown!r}" + _hint(f"{self.command_name} {unknown}", nested)
            options = [option for action in self._actions for option in action.option_strings]
            return f"unknown option {unknown}" + _hint(unknown, options)
        return message


def _hint(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _holds(content: dict[str, Any], field: CommandField, value: str) -> bool:
    found: Any = content
    for part in field.name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found is not None and str(found) == value


def _build_parser(command: Command, config_class: type, fields: list[CommandField]) -> _CommandParser:
    examples = "\n".join(f"  {line}" for line in command.examples)
    nested = "".join(f"  trimaran {row.name}  {row.summary}\n" for row in nested_commands(command.name))
    parser = _CommandParser(
        prog=f"trimaran {command.name}",
        usage=_usage(command, fields),
        description=_description(config_class) or command.summary,
        epilog=(f"commands of their own:\n{nested}\n" if nested else "")
        + f"examples:\n{examples}\n\nexit codes: 0 done, 1 verdict failed, 2 your mistake, 3 our bug",
        formatter_class=_HelpFormatter,
        print_config=None,
        allow_abbrev=False,
    )
    config_help = "read settings from a YAML file; options on the command line win"
    parser.command_name = command.name
    parser.fields = {field.name: field for field in fields}
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help=config_help)
    groups: dict[str, Any] = {"": parser}
    for field in fields:
        if field.section not in groups:
            groups[field.section] = parser.add_argument_group(field.section)
        _add(parser, groups[field.section], field)
    if all(field.name != "log_level" for field in fields):
        levels = choices(get_args(LogLevel))
        level_help = "how much to log on stderr (default: warning)"
        parser.add_argument("--log-level", type=LogLevel | None, metavar=levels, help=level_help)
    return parser


def _usage(command: Command, fields: list[CommandField]) -> str:
    positional = [field for field in fields if field.positional]
    words = [field.spelled if field.required else f"[{field.spelled}]" for field in positional]
    words += [
        f"{field.option} {field.metavar}" for field in fields if field.required and not field.positional
    ]
    return " ".join([f"trimaran {command.name}", *words, "[options]"])


def _add(parser: _CommandParser, group: Any, field: CommandField) -> None:
    text = field.help
    if field.positional:
        parser.add_argument(
            _LINE + field.name, type=field.type | None, nargs="?", metavar=field.spelled, help=text
        )
        text = argparse.SUPPRESS
    if field.type is bool:
        action = ActionYesNo(no_prefix="no-")
        group.add_argument(field.option, action=action, default=field.default, help=text)
        return
    hint = field.type | None if field.required else field.type  # what is missing is told once, for all
    group.add_argument(field.option, type=hint, default=field.default, metavar=field.metavar, help=text)


def _description(config_class: type) -> str:
    """The class docstring up to its first section (``Attributes:``, ``Raises:``)."""
    text = config_class.__doc__ or ""
    if text.startswith(f"{config_class.__name__}("):  # dataclass writes the signature where there is none
        return ""
    lines = [line.strip() for line in text.strip().splitlines()]
    ends = [n for n, line in enumerate(lines) if re.fullmatch(r"(Attributes|Args|Raises|Examples?):", line)]
    return "\n".join(lines[: ends[0]] if ends else lines).strip()


def _prepare(
    arguments: list[str], fields: list[CommandField]
) -> tuple[list[str], list[tuple[Path, dict[str, Any]]]]:
    """Resolve ``--config`` files, read ``a,b`` as a list, take ``--some_option`` for ``--some-option``."""
    options = {field.option: field for field in fields}
    prepared: list[str] = []
    files: list[tuple[Path, dict[str, Any]]] = []
    waiting = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        dashed = name.replace("_", "-")
        if waiting:
            name, equals, value, waiting = waiting, "=", argument, ""
        elif dashed == "--config" or dashed in options:
            name = dashed
            if not equals and (name == "--config" or options[name].takes_list):
                waiting = name
                continue
        if equals and name == "--config":
            path = find_config(value)
            files.append((path, read_config(path)))
            value = str(path)
        elif equals and name in options and options[name].takes_list:
            value = _list_value(value, options[name])
        elif equals and name in options and options[name].type is bool:
            name, equals, value = _switch(name, value)
        prepared.append(f"{name}{equals}{value}")
    if waiting:
        raise ConfigError(f"{waiting}: a value is missing after it")
    return prepared, files


def _switch(name: str, value: str) -> tuple[str, str, str]:
    """``--fidelity=false`` is ``--no-fidelity``."""
    if value.lower() in ("true", "yes", "false", "no"):
        return (name if value.lower() in ("true", "yes") else name.replace("--", "--no-", 1)), "", ""
    raise ConfigError(f"{name}: expected true or false, got {value!r}")


def _list_value(value: str, field: CommandField) -> str:
    if value.startswith("[") or (field.takes_single and "," not in value):
        return value
    return json.dumps([item for item in value.split(",") if item], ensure_ascii=False)
