"""Which fine-tuning methods there are: the sub-folders of this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from checkpoints.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from training.methods.traits import Traits

__all__ = ["ALIASES", "Apply", "load_method", "method_names", "method_traits", "resolve_method"]

# A name people use -> (the method it is, the base quantization it stands for).
ALIASES: dict[str, tuple[str, str]] = {"qlora": ("lora", "nf4")}


class Apply(Protocol):
    """Makes of a loaded base the model to train: an adapter on it, frozen, or itself.

    ``routers`` names the routers of a mixture of experts that are trained; the others stay frozen.
    """

    def __call__(
        self, model: PreTrainedModel, settings: Any, routers: Sequence[str] = ()
    ) -> PeftModel | PreTrainedModel: ...


def method_names() -> list[str]:
    """Return the names of all methods, without importing any of them."""
    package = importlib.import_module("training.methods")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg)


def resolve_method(name: str) -> tuple[str, str | None]:
    """Return the method that ``name`` stands for and the base quantization it implies, if any.

    Raises:
        ConfigError: no method has this name; the message lists those there are.
    """
    if name in ALIASES:
        return ALIASES[name]
    if name not in method_names():
        known = ", ".join([*method_names(), *ALIASES])
        raise ConfigError(f"method = {name!r} is unknown; the methods are: {known}")
    return name, None


def method_traits(name: str) -> Traits:
    """Return the traits of method ``name`` (not an alias); nothing heavy is imported."""
    traits: Traits = importlib.import_module(f"training.methods.{name}.config").TRAITS
    return traits


def load_method(name: str) -> Apply:
    """Import and return the ``apply`` function of method ``name`` (not an alias)."""
    return cast(Apply, importlib.import_module(f"training.methods.{name}.apply").apply)
