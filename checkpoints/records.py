"""A JSON object -> a dataclass, with every field's type checked and named when it is wrong."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["RecordError", "build_record"]

T = TypeVar("T")


class RecordError(ValueError):
    """The JSON does not fit the dataclass; the message names the field."""


def build_record(kind: type[T], value: dict[str, Any], where: str = "") -> T:
    """Build dataclass ``kind`` from a JSON object.

    Raises:
        RecordError: a field is missing, unknown or of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise RecordError(f"unknown field {where}{unknown[0]}")
    arguments: dict[str, Any] = {}
    for name, item in known.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}{name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise RecordError(f"field {where}{name} is missing")
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (option for option in arguments if option is not type(None))
        return _convert(inner, value, where)
    if origin is Literal:
        if value not in arguments:
            raise RecordError(f"{where} is {value!r}, expected one of {', '.join(map(str, arguments))}")
        return value
    if origin is list:
        _expect(isinstance(value, list), "a list", value, where)
        return [_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        _expect(isinstance(value, dict), "an object", value, where)
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        _expect(isinstance(value, dict), "an object", value, where)
        return build_record(hint, value, f"{where}.")  # type: ignore[arg-type]
    if hint is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), "a number", value, where)
        return float(value)
    if hint is int:
        _expect(isinstance(value, int) and not isinstance(value, bool), "an integer", value, where)
        return value
    _expect(isinstance(value, hint), hint.__name__, value, where)
    return value


def _expect(fits: bool, expected: str, value: Any, where: str) -> None:
    if not fits:
        raise RecordError(f"{where} is {value!r}, expected {expected}")
