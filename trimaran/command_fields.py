"""The fields of a config dataclass as a command line shows them: name, metavar, help, default."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import docstring_parser

__all__ = ["CommandField", "choices", "construct", "walk_fields"]


@dataclasses.dataclass(frozen=True)
class CommandField:
    """One leaf of a config: a field that is no section.

    Attributes:
        name: dotted, ``lora.rank`` for the field ``rank`` of the section ``lora``.
        type: the resolved annotation.
        section: docstring of the section it is in; empty at the top.
        positional: whether it is given by its place on the line.
    """

    name: str
    type: Any
    default: Any
    required: bool
    text: str
    section: str
    positional: bool

    @property
    def option(self) -> str:
        """``--lora.target-modules``."""
        return "--" + self.name.replace("_", "-")

    @property
    def spelled(self) -> str:
        """As the usage line and error messages name it."""
        return self.name.upper() if self.positional else self.option

    @property
    def takes_list(self) -> bool:
        """Whether ``a,b`` is a list."""
        return _is_list(self.type)

    @property
    def takes_single(self) -> bool:
        """Whether a value without a comma stays a single value (``str | list[str]``)."""
        return any(typing.get_origin(part) is not list for part in _parts(self.type))

    @property
    def metavar(self) -> str:
        """``PATH``, ``N``, ``{bf16,fp32}``, ``TEXT[,...]``."""
        return _metavar(self.type)

    @property
    def accepts(self) -> str:
        """In words, for an error message: ``a whole number, or null``."""
        null = " or null" if type(None) in typing.get_args(self.type) else ""
        return " or ".join(dict.fromkeys(_words(part) for part in _parts(self.type))) + null

    @property
    def help(self) -> str:
        """Docstring and default, as argparse wants it (``%`` doubled)."""
        if self.required:
            note = "(required)"
        elif self.default is None or self.default == []:
            note = ""
        elif isinstance(self.default, bool):
            note = f"(default: {'yes' if self.default else 'no'})"
        elif isinstance(self.default, list):
            note = f"(default: {','.join(map(str, self.default))})"
        else:
            note = f"(default: {self.default})"
        return f"{' '.join(self.text.split())} {note}".strip().replace("%", "%%")


def walk_fields(config_class: type, prefix: str = "", section: str = "") -> Iterator[CommandField]:
    """Yield the leaves of ``config_class``, sections included, in the order of the source; own ones first."""
    hints = typing.get_type_hints(config_class)
    docs = _docstrings(config_class)
    positional: tuple[str, ...] = () if prefix else getattr(config_class, "POSITIONAL", ())
    own = inspect.get_annotations(config_class)
    # What a config adds to the one that it extends comes first: that is what its command is about.
    for field in sorted(dataclasses.fields(config_class), key=lambda field: field.name not in own):
        if not field.init:
            continue
        hint, text = hints[field.name], docs.get(field.name, "")
        if _is_section(hint):
            yield from walk_fields(hint, f"{prefix}{field.name}.", text.rstrip(".") or field.name)
            continue
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        name = f"{prefix}{field.name}"
        group = section or _heading(config_class, field.name)
        yield CommandField(name, hint, default, required, text, group, field.name in positional)


def _heading(config_class: type, name: str) -> str:
    """Return the first line of the docstring of the class that an inherited field comes from."""
    for one in config_class.__mro__:
        if name in inspect.get_annotations(one):
            return "" if one is config_class else (one.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return ""


def _docstrings(config_class: type) -> dict[str, str]:
    """Return the docstring of every field, also of the classes that are extended."""
    found: dict[str, str] = {}
    for one in reversed(config_class.__mro__):
        if dataclasses.is_dataclass(one):
            documented = docstring_parser.parse_from_object(one).params
            found |= {row.arg_name: row.description for row in documented if row.description}
    return found


def construct(config_class: type, values: dict[str, Any], prefix: str = "") -> Any:
    """Build ``config_class``, sections first, from values by dotted name."""
    hints = typing.get_type_hints(config_class)
    arguments = {}
    for field in dataclasses.fields(config_class):
        if not field.init:
            continue
        if _is_section(hints[field.name]):
            arguments[field.name] = construct(hints[field.name], values, f"{prefix}{field.name}.")
        else:
            arguments[field.name] = values[f"{prefix}{field.name}"]
    return config_class(**arguments)


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, without None; anything else alone."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return tuple(part for part in typing.get_args(hint) if part is not type(None))
    return (hint,)


def _is_list(hint: Any) -> bool:
    return any(typing.get_origin(part) is list for part in _parts(hint))


def _metavar(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return choices(typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"{_metavar(typing.get_args(hint)[0])}[,...]"
    if parts := [part for part in _parts(hint) if part is not hint]:
        shown = [_metavar(part) for part in parts]
        return "|".join(name for name in shown if f"{name}[,...]" not in shown)
    return {Path: "PATH", int: "N", float: "X", str: "TEXT"}.get(hint, "VALUE")


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if typing.get_origin(hint) is list:
        return f"a list (each {_words(typing.get_args(hint)[0])})"
    known = {Path: "a path", int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return known.get(hint, str(hint))


def choices(values: Iterable[object]) -> str:
    """``{a,b}``."""
    return "{" + ",".join(map(str, values)) + "}"
