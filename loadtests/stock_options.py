"""Our settings as options of plain Locust: those that Locust has no option of its own for."""

from __future__ import annotations

import typing
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import docstring_parser

from loadtests import protocols
from loadtests.arrivals.process import ARRIVALS
from loadtests.config import LoadTestConfig
from loadtests.errors import ConfigError
from loadtests.workloads.checks import WORKLOADS

__all__ = ["add_options", "config_from_options"]

# Locust has --host, --users, --spawn-rate, --run-time and --stop-timeout; a test there ends by time, and
# --results never replaces anything.
_OF_LOCUST = (
    "url", "users", "spawn_rate", "duration", "stop_timeout", "max_requests", "output", "overwrite",
    "plots",
)  # fmt: skip
# What may change from test to test in the web UI.
_IN_WEB_UI = (
    "model", "workload", "prompts", "tokenizer", "input_tokens", "output_tokens", "force_output_tokens",
    "prefixes", "prefix_tokens", "prefix_share", "turns", "think_time", "max_tokens", "temperature", "top_p",
    "top_k", "arrivals", "rate", "trace", "trace_speed",
)  # fmt: skip
_WORDS = {int: "a whole number", float: "a number"}
_SECONDS_OF_AN_ENDLESS_TEST = 3600


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser."""
    documented = [
        entry
        for kind in LoadTestConfig.__mro__
        if is_dataclass(kind)
        for entry in docstring_parser.parse_from_object(kind).params
    ]
    texts = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documented}
    choices = {"protocol": protocols.names(), "arrivals": ARRIVALS, "workload": WORKLOADS}
    results = "directory for results.json, report.html, requests.jsonl and .csv, summary.md and junit.xml"
    parser.add_argument("--results", default="", help=results, include_in_web_ui=False)
    for field, kind in _ours():
        option: dict[str, Any] = {"help": texts[field.name].replace("%", "%%")}
        if kind is bool:
            option |= {"action": "store_true", "default": field.default}
        else:
            # The web UI has no way to say None: there and here it is an empty text.
            empty = field.default is None and (kind in (str, Path) or field.name in _IN_WEB_UI)
            option |= {
                "type": str if empty or kind is Path else kind,
                "default": "" if empty else field.default,
                "choices": choices.get(field.name),
            }
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", include_in_web_ui=field.name in _IN_WEB_UI, **option
        )


def config_from_options(options: Namespace) -> LoadTestConfig:
    """Return our settings from Locust's parsed options.

    Raises:
        ConfigError: an option is out of range.
    """
    values: dict[str, Any] = {}
    for field, kind in _ours():
        values[field.name] = _read(field.name, kind, getattr(options, field.name))
    run_time = options.run_time
    seconds = run_time if isinstance(run_time, int) and run_time > 0 else _SECONDS_OF_AN_ENDLESS_TEST
    return LoadTestConfig(
        url=options.host or protocols.user_class(options.protocol).host or LoadTestConfig.url,
        users=options.num_users or (1 if options.arrivals == "closed" else None),
        duration=f"{seconds}s",
        stop_timeout=f"{float(options.stop_timeout):g}s",
        output=Path(options.results) if options.results else None,
        **values,
    )


def _read(name: str, kind: type, value: Any) -> Any:
    try:
        return None if value is None or value == "" else kind(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {value!r} is not {_WORDS.get(kind, kind.__name__)}") from error


def _ours() -> Iterator[tuple[Field[Any], type]]:
    """Yield our fields, each with the type that its text is turned into."""
    hints = typing.get_type_hints(LoadTestConfig)
    for field in fields(LoadTestConfig):
        if field.name not in _OF_LOCUST:
            kinds = [kind for kind in typing.get_args(hints[field.name]) if kind is not type(None)]
            # A rate or a length is a number or a text: a text can be both.
            yield field, str if str in kinds else kinds[0] if kinds else hints[field.name]
