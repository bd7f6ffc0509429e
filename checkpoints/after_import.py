"""Runs a function once a module has been imported, without importing it.

``import checkpoints`` must cost nothing, yet what it adds to another library has to be there when that
library is used. So the import system (PEP 451) is asked to tell when it has executed the module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["after_import"]


def after_import(name: str, action: Callable[[], None]) -> None:
    """Call ``action`` now if the module ``name`` is imported already, else right after it is.

    The importing module is then still in the middle of its own imports, so ``action`` must not import
    anything that could be among them.
    """
    if name in sys.modules:
        action()
        return
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())
    _waiting.setdefault(name, []).append(action)


_waiting: dict[str, list[Callable[[], None]]] = {}


class _Watcher(MetaPathFinder):
    """Finds what is waited for through the other finders, and adds the actions to its loader."""

    def __init__(self) -> None:
        self._searching: set[str] = set()  # another finder of this kind may ask back

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _waiting or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
            spec = next((one for one in found if one is not None), None)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            _extend(spec.loader, fullname)
        return spec


def _extend(loader: Loader, name: str) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if module.__name__ == name:  # a loader may serve several modules
            for action in _waiting.pop(name, []):
                action()

    loader.exec_module = exec_module  # type: ignore[method-assign]
