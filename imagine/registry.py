"""Named choices that are imported only when somebody chooses them."""

from __future__ import annotations

from importlib import import_module
from typing import Generic, TypeVar, cast

from imagine.errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind of thing and where to find each.

    Nothing heavy is imported until a name is chosen, so listing what exists stays instant.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._targets: dict[str, str] = {}

    def add(self, name: str, target: str) -> None:
        """Register `target`, written "package.module:attribute", under `name`."""
        if name in self._targets and self._targets[name] != target:
            raise ValueError(f"{self.kind} {name!r} is already {self._targets[name]!r}.")
        self._targets[name] = target

    def names(self) -> list[str]:
        """Every registered name, in the order of registration."""
        return list(self._targets)

    def check(self, name: str) -> None:
        """Refuse a name nobody registered, without importing anything.

        Raises:
            UnknownName: nobody registered it; the message lists the known names.
        """
        if name not in self._targets:
            known = ", ".join(self._targets) or "none"
            raise UnknownName(f"There is no {self.kind} called {name!r}. Known: {known}.")

    def get(self, name: str) -> type[T]:
        """Import and return the class registered under `name`.

        Raises:
            UnknownName: as `check`.
        """
        self.check(name)
        module, _, attribute = self._targets[name].partition(":")
        return cast("type[T]", getattr(import_module(module), attribute))
