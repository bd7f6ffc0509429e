"""PEFT's list of methods with ours added.

``register_peft_method`` takes only names that are in the enumeration ``PeftType``, which Python does not let
anybody extend by subclassing.
"""

from __future__ import annotations

from typing import Any

from peft import PeftType

__all__ = ["NAME", "bottleneck_type"]

NAME = "BOTTLENECK"


def bottleneck_type() -> Any:
    """Return ``PeftType.BOTTLENECK``, added to the enumeration at the first call."""
    known: dict[str, Any] = PeftType.__members__
    if NAME in known:
        return known[NAME]
    member: Any = str.__new__(PeftType, NAME)
    member._name_ = member._value_ = NAME
    member._sort_order_ = len(PeftType._member_names_)
    setattr(PeftType, NAME, member)  # first: once it is a member, the enumeration guards the name
    PeftType._member_names_.append(NAME)
    PeftType._member_map_[NAME] = member
    PeftType._value2member_map_[NAME] = member
    return member
