"""The registry of protocols: every file in ``users/`` is one.

The name is the file's, without the server's prefix: ``users/triton_generate_stream.py`` is
``generate_stream``, ``users/openai_chat.py`` is ``openai_chat``. Each file defines one concrete
subclass of ``MeasuredUser``. Names are read off the folder, so the command line knows them without
importing Locust.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

import loadtests.users

if TYPE_CHECKING:
    from loadtests.measured_user import MeasuredUser

__all__ = ["name_of", "names", "user_class"]

_SERVER_PREFIX = "triton_"


@cache
def _modules() -> dict[str, str]:
    found = (module.name for module in pkgutil.iter_modules(loadtests.users.__path__))
    named = {name.removeprefix(_SERVER_PREFIX): f"loadtests.users.{name}" for name in found}
    return dict(sorted(named.items()))


def names() -> tuple[str, ...]:
    """Return the names that ``--protocol`` takes."""
    return tuple(_modules())


def name_of(user: type[MeasuredUser]) -> str:
    """Return what ``--protocol`` calls a user."""
    return next(name for name, module in _modules().items() if module == user.__module__)


def user_class(name: str) -> type[MeasuredUser]:
    """Import the protocol's file and return its Locust user. Patches this process (gevent).

    Raises:
        KeyError: no such protocol.
        TypeError: the file does not define exactly one concrete user.
    """
    from loadtests.measured_user import MeasuredUser

    module = importlib.import_module(_modules()[name])
    found = [
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, MeasuredUser)
        and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define one user, not {len(found)}")
    return found[0]
