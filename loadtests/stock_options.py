"""Our settings as options of plain Locust: those that Locust has no option of its own for."""

from __future__ import annotations

import typing
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import docstring_parser

from loadtests import protocols
from loadtests.arrivals.process import ARRIVALS
from loadtests.config import LoadTestConfig

__all__ = ["add_options", "config_from_options"]

# Locust has --host, --users, --spawn-rate, --run-time and --stop-timeout; a test there ends by time, and
# --results never replaces anything.
_OF_LOCUST = (
    "url", "users", "spawn_rate", "duration", "stop_timeout", "max_requests", "output", "overwrite",
    "plots",
)  # fmt: skip
# What may change from test to test in the web UI.
_IN_WEB_UI = ("model", "prompts", "max_tokens", "temperature", "arrivals", "rate", "trace", "trace_speed")
_SECONDS_OF_AN_ENDLESS_TEST = 3600


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser."""
    documented = docstring_parser.parse_from_object(LoadTestConfig).params
    texts = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documented}
    choices = {"protocol": protocols.names(), "arrivals": ARRIVALS}
    results = "directory for results.json, report.html, requests.jsonl and .csv, summary.md and junit.xml"
    parser.add_argument("--results", default="", help=results, include_in_web_ui=False)
    for field, kind in _ours():
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=str if kind is Path else kind,
            # The web UI has no way to say None.
            default="" if field.default is None and kind in (str, Path) else field.default,
            choices=choices.get(field.name),
            help=texts[field.name].replace("%", "%%"),
            include_in_web_ui=field.name in _IN_WEB_UI,
        )


def config_from_options(options: Namespace) -> LoadTestConfig:
    """Return our settings from Locust's parsed options.

    Raises:
        ConfigError: an option is out of range.
    """
    values: dict[str, Any] = {}
    for field, kind in _ours():
        value = getattr(options, field.name)
        values[field.name] = None if value == "" else kind(value) if value is not None else None
    run_time = options.run_time
    seconds = run_time if isinstance(run_time, int) and run_time > 0 else _SECONDS_OF_AN_ENDLESS_TEST
    return LoadTestConfig(
        url=options.host or protocols.user_class(options.protocol).host or LoadTestConfig.url,
        users=options.num_users or (1 if options.arrivals == "closed" else None),
        duration=f"{seconds}s",
        output=Path(options.results) if options.results else None,
        **values,
    )


def _ours() -> Iterator[tuple[Field[Any], type]]:
    """Yield our fields, each with the type that its text is turned into."""
    hints = typing.get_type_hints(LoadTestConfig)
    for field in fields(LoadTestConfig):
        if field.name not in _OF_LOCUST:
            kinds = [kind for kind in typing.get_args(hints[field.name]) if kind is not type(None)]
            # A rate is a number or a text: a text can be both.
            yield field, str if str in kinds else kinds[0] if kinds else hints[field.name]
