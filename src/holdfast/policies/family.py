"""Policies of one contract by name: built-in ones, and others' by entry point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from holdfast.errors import PolicyError
from holdfast.policies.spec import Configured, PolicySpec, convert_settings, read_settings

__all__ = ["SETTING", "Family"]

SETTING = ":"
"""What comes before each setting that follows a name."""

T = TypeVar("T", bound=Configured)


@dataclass(frozen=True, slots=True)
class Family(Generic[T]):
    """The policies of a contract. Modules are imported when a policy is asked for.

    Attributes:
        base: Class that all of them have.
        group: Entry point group of others' policies.
        built_in: `module:class` by name.
        reserved: Names that are no policies, listed before them.
    """

    base: type[T]
    group: str
    built_in: Mapping[str, str]
    reserved: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        """Whether a policy of this name is built in or registered."""
        return name in self.built_in or bool(entry_points(group=self.group, name=name))

    def names(self) -> tuple[str, ...]:
        """All names: reserved ones, built-in ones, then others'."""
        own = (*self.reserved, *self.built_in)
        return (*own, *sorted(entry_points(group=self.group).names - set(own)))

    def kind(self, name: str) -> type[T]:
        """The class of a policy, whose name has no settings.

        Raises:
            PolicyError: Nothing is registered as `name`, or what is registered cannot be loaded, is
                no policy of the contract, or has another name.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            found: Any = getattr(import_module(module), attribute)
            return cast("type[T]", found)
        registered = entry_points(group=self.group, name=name)
        if not registered:
            known = ", ".join(self.names())
            raise PolicyError(f"unknown policy {name!r}", hint=f"known policies: {known}")
        point = next(iter(registered))
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise PolicyError(
                f"policy {name!r} cannot be loaded from {point.value}: {error}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise PolicyError(
                f"policy {name!r} is {found!r}, not a subclass of holdfast's {self.base.__name__}"
            )
        spec = getattr(found, "spec", None)
        if not isinstance(spec, PolicySpec) or spec.name != name:
            raise PolicyError(
                f"policy {name!r} ({point.value}) has spec {spec!r}",
                hint=f"expected a PolicySpec whose name is that of the entry point, {name!r}",
            )
        return found

    def specs(self) -> Iterator[PolicySpec]:
        """What is known about each policy; of a broken one, its error."""
        for name in self.names():
            try:
                yield self.kind(name).spec
            except PolicyError as error:
                yield PolicySpec(name, summary=f"cannot be used: {error}", source="")

    def build(self, name: str, values: Mapping[str, object]) -> T:
        """Build a policy that needs nothing but settings.

        Args:
            name: The policy.
            values: Its settings, decoded; those that are missing keep their defaults.

        Raises:
            PolicyError: It is unknown, has no such setting, or a value is of the wrong type or
                range.
        """
        kind = self.kind(name)
        settings = convert_settings(name, kind.spec.settings, values)
        return kind() if settings is None else kind(settings)

    def parse(self, text: str) -> T:
        """Build such a policy from its name and settings, as in `prefix:least_shared=0.5`.

        Raises:
            PolicyError: As for `build`.
        """
        name, *pairs = text.split(SETTING)
        kind = self.kind(name)
        settings = read_settings(name, kind.spec.settings, pairs)
        return kind() if settings is None else kind(settings)
