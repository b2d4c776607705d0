"""Compares Holdfast's expectations of vLLM's code with the installed vLLM.

It reads the expectations from Holdfast's own source: names imported from vLLM, overridden methods
of vLLM's classes, and calls of imported names, of `super()` and of vLLM's objects. Holdfast's
source has no types for vLLM's objects; `_OBJECTS` names the class of each such variable.

Process: every; reads source, runs no engine. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import logging
import pkgutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from inspect import Parameter
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

__all__ = [
    "COMPACTION",
    "CONTROL",
    "SCHEDULER",
    "TIERED_COMPACTION",
    "TIERS",
    "breaches",
    "modules_of",
]

SCHEDULER: Final = "holdfast.vllm"
TIERS: Final = "holdfast.vllm.offload"
CONTROL: Final = "holdfast.vllm.control"
COMPACTION: Final = "holdfast.vllm.compaction"
TIERED_COMPACTION: Final = "holdfast.vllm.tiered_compaction"

_THEIRS: Final = "vllm"
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_NAMED: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)

_CORE: Final = "vllm.v1.core"
_SCHEDULER: Final = f"{_CORE}.sched.scheduler.Scheduler"
_BLOCK_POOL: Final = f"{_CORE}.block_pool.BlockPool"
_CACHE_MANAGER: Final = f"{_CORE}.kv_cache_manager.KVCacheManager"
_CONNECTOR: Final = (
    "vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector.OffloadingConnector"
)
_TRANSFERS: Final = (
    "vllm.distributed.kv_transfer.kv_connector.v1.offloading.scheduler.OffloadingConnectorScheduler"
)
_OFFLOAD: Final = "vllm.v1.kv_offload"
_TIERING: Final = f"{_OFFLOAD}.tiering.manager.TieringOffloadingManager"

_OBJECTS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("compat", "scheduler"): _SCHEDULER,
        ("compaction.paused_prefixes", "self._pool"): _BLOCK_POOL,
        ("compaction.returning", "request"): "vllm.v1.request.Request",
        ("control.channel", "core"): "vllm.v1.engine.core_client.AsyncMPClient",
        ("control.state", "pool"): _BLOCK_POOL,
        ("control.state", "scheduler"): _SCHEDULER,
        ("eviction_meter", "block_pool"): _BLOCK_POOL,
        ("scheduler", "self._pool"): _BLOCK_POOL,
        ("scheduler", "self.kv_cache_manager"): _CACHE_MANAGER,
        ("requests", "self._pool"): _BLOCK_POOL,
        ("warm_ups", "self._scheduler"): _SCHEDULER,
        ("offload.prefetch.placeholder_requests", "connector"): _CONNECTOR,
        ("offload.prefetch.placeholder_requests", "manager"): _CACHE_MANAGER,
        ("offload.prefetch.placeholder_requests", "scheduler"): _SCHEDULER,
        ("offload.prefetch.placeholder_requests", "self._scheduler"): _SCHEDULER,
        ("offload.transfer_gate", "self._transfers"): _TRANSFERS,
        ("offload.prefetch.prefetcher", "scheduler"): _SCHEDULER,
        ("offload.prefetch.tier_reads", "manager"): _TIERING,
        ("offload.prefetch.tier_reads", "self._manager"): _TIERING,
        ("offload.prefetch.tier_reads", "tier"): f"{_OFFLOAD}.tiering.base.SecondaryTierManager",
        ("offload.disk_tier", "self._lookup_manager"): (
            f"{_OFFLOAD}.tiering.async_lookup.AsyncLookupManager"
        ),
        ("offload.disk_tier", "self.file_mapper"): f"{_OFFLOAD}.file_mapper.FileMapper",
        ("offload.spec", "self._scheduler_mmap"): (
            f"{_OFFLOAD}.cpu.shared_offload_region.SharedOffloadRegion"
        ),
    }
)
# Classes that replace one of vLLM's without a common base.
_STAND_INS: Final[Mapping[str, str]] = MappingProxyType(
    {"holdfast.cache.eviction_queue.EvictionQueue": f"{_CORE}.kv_cache_utils.FreeKVCacheBlockQueue"}
)


def modules_of(part: str) -> list[str]:
    """Names of a part's modules, sorted. Pure.

    The scheduler's packages are parts of their own.

    Args:
        part: `SCHEDULER`, `TIERS`, `CONTROL`, `COMPACTION` or `TIERED_COMPACTION`.
    """
    package = importlib.import_module(part)
    walk = pkgutil.iter_modules if part == SCHEDULER else pkgutil.walk_packages
    return sorted(one.name for one in walk(package.__path__, f"{part}.") if not one.ispkg)


def breaches(modules: Iterable[str]) -> list[str]:
    """Unmet expectations of the installed vLLM; empty if all are met.

    Args:
        modules: Full names of modules of ours; see `modules_of`.

    Returns:
        A sentence each that names vLLM's class and method, and ours; sorted.
    """
    filters: tuple[Any, ...] = (logging.root, *logging.root.handlers)
    levels = [(one, one.level) for one in filters]
    try:
        return sorted(_found_in({name: _tree_of(name) for name in modules}))
    finally:
        for one, level in levels:  # importing vLLM's server sets them to ERROR
            one.setLevel(level)


def _found_in(trees: Mapping[str, ast.Module]) -> set[str]:
    found = {one for name, tree in trees.items() for one in _missing_names(name, tree)}
    # If names are missing, our modules do not import.
    for name, tree in () if found else trees.items():
        try:
            module = importlib.import_module(name)
        except ImportError as error:  # a module of ours that it imports has a name missing
            found.add(f"{name} cannot be imported: {error}")
            continue
        found.update(_Reader(module).breaches(tree))
        for _, ours in inspect.getmembers(module, inspect.isclass):
            if ours.__module__ == name:
                found.update(_class_breaches(ours))
    return found


# Names.


def _tree_of(name: str) -> ast.Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Imports from vLLM: module, name, and local name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.partition(".")[0] == _THEIRS:
            for alias in node.names:
                yield node.module, alias.name, alias.asname or alias.name


def _missing_names(name: str, tree: ast.AST) -> Iterator[str]:
    for module, imported, _ in _imports(tree):
        try:
            _imported(module, imported)
        except (ImportError, AttributeError):
            yield f"{module}.{imported}, which {name} imports, is not there"


def _imported(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    if not hasattr(found, name):
        return importlib.import_module(f"{module}.{name}")
    return getattr(found, name)


@cache
def _class_named(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


# Overrides.


def _class_breaches(ours: type[Any]) -> Iterator[str]:
    for name in sorted(getattr(ours, "__abstractmethods__", ())):
        yield f"{ours.__name__} lacks {name}, which vLLM's class requires"
    stand_in = _STAND_INS.get(f"{ours.__module__}.{ours.__qualname__}")
    theirs = None if stand_in is None else _class_named(stand_in)
    for name, base, method in _overridden(ours, theirs):
        own = inspect.getattr_static(ours, name, None)
        if own is None:
            yield f"{ours.__name__} lacks {name}, which {base.__name__} has"
        elif isinstance(own, property) != isinstance(method, property):
            yield f"{base.__name__}.{name} is a property or is not, unlike {ours.__name__}'s"
        elif callable(_function(own)) and callable(_function(method)):
            for trouble in _differences(_function(own), _function(method)):
                yield f"{base.__name__}.{name} {trouble}, {ours.__name__}.{name} does not"


def _overridden(ours: type[Any], theirs: type[Any] | None) -> Iterator[tuple[str, type[Any], Any]]:
    """Methods of vLLM that a class overrides: name, vLLM's class, vLLM's method."""
    if theirs is not None:
        for name, method in vars(theirs).items():
            if not name.startswith("_") and callable(method):
                yield name, theirs, method
        return
    for name in vars(ours):
        base = _owner_of(ours.__mro__[1:], name)
        if base is not None and name != "__init__" and not _is_of_every_object(name):
            yield name, base, vars(base)[name]


def _is_of_every_object(name: str) -> bool:
    return hasattr(type("_", (), {}), name)


def _owner_of(classes: Iterable[type[Any]], name: str) -> type[Any] | None:
    """The first class that defines a name, if it is vLLM's."""
    for one in classes:
        if name in vars(one):
            return one if one.__module__.partition(".")[0] == _THEIRS else None
    return None


def _function(member: Any) -> Any:
    return getattr(member, "__func__", member)


def _differences(own: Callable[..., Any], theirs: Callable[..., Any]) -> Iterator[str]:
    """Arguments that `theirs` takes and `own` does not, or the reverse."""
    mine, wanted = (list(inspect.signature(f).parameters.values()) for f in (own, theirs))
    by_kind = {p.kind: p for p in mine if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    has_args, has_kwargs = Parameter.VAR_POSITIONAL in by_kind, Parameter.VAR_KEYWORD in by_kind
    positional = [p.name for p in mine if p.kind in _POSITIONAL]
    named = {p.name for p in mine if p.kind in _NAMED}
    for index, parameter in enumerate(wanted):
        if parameter.kind in _POSITIONAL:
            own_name = positional[index : index + 1]
            if own_name != [parameter.name] and not (has_args and not own_name):
                yield f"takes {parameter.name} as argument {index}"
        elif parameter.kind is Parameter.KEYWORD_ONLY and not (
            has_kwargs or parameter.name in named
        ):
            yield f"takes {parameter.name}="
    given = {p.name for p in wanted}
    for parameter in mine:
        is_needed = parameter.default is Parameter.empty and parameter.kind in _NAMED
        if is_needed and parameter.name not in given:
            yield f"does without {parameter.name}"


# Uses.


class _Reader(ast.NodeVisitor):
    """Compares a module's uses of vLLM with the installed vLLM."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._names: dict[str, Any] = {}
        self._class: type[Any] | None = None
        self._found: list[str] = []
        short = module.__name__.removeprefix(f"{SCHEDULER}.")
        self._objects = {text: path for (name, text), path in _OBJECTS.items() if name == short}

    def breaches(self, tree: ast.Module) -> list[str]:
        """Unmet expectations of one module; see the function `breaches`."""
        self._names = {here: _imported(module, name) for module, name, here in _imports(tree)}
        self.visit(tree)
        return self._found

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Remember the class that `self` and `super()` refer to."""
        outer, self._class = self._class, getattr(self._module, node.name, None)
        self.generic_visit(node)
        self._class = outer

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Check that an attribute of vLLM exists."""
        owner = self._owner(node.value)
        if owner is not None and isinstance(node.ctx, ast.Load) and not _has(owner, node.attr):
            self._tell(node, f"{_name_of(owner)}.{node.attr} is not there")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Check a call's arguments against the signature."""
        called = self._called(node.func)
        if called is not None:
            trouble = _trouble_with(called, node)
            if trouble:
                self._tell(node, f"{ast.unparse(node.func)}(): {trouble}")
        self.generic_visit(node)

    def _tell(self, node: ast.expr, what: str) -> None:
        self._found.append(f"{what} ({self._module.__name__}:{node.lineno})")

    def _owner(self, node: ast.expr) -> Any:
        """The class or module of vLLM that an expression is or instantiates; else None."""
        text = ast.unparse(node)
        if text in self._objects:
            return _class_named(self._objects[text])
        if isinstance(node, ast.Name):
            if node.id == "self":
                is_theirs = self._class is not None and any(_is_theirs(self._class.__mro__))
                return self._class if is_theirs else None
            found = self._names.get(node.id)
            return found if inspect.isclass(found) or inspect.ismodule(found) else None
        return None

    def _called(self, func: ast.expr) -> Any:
        if isinstance(func, ast.Name):
            return self._names.get(func.id)
        if not isinstance(func, ast.Attribute):
            return None
        if _is_super(func.value) and self._class is not None:
            base = _owner_of(self._class.__mro__[1:], func.attr)
            return None if base is None else _bound(vars(base)[func.attr])
        owner = self._owner(func.value)
        if owner is None or owner is self._class or not inspect.isclass(owner):
            return None
        method = inspect.getattr_static(owner, func.attr, None)
        is_class = isinstance(func.value, ast.Name) and func.value.id in self._names
        return method if method is None or is_class else _bound(method)


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "super"


def _is_theirs(classes: Iterable[type[Any]]) -> Iterator[bool]:
    return (one.__module__.partition(".")[0] == _THEIRS for one in classes)


def _bound(method: Any) -> Any:
    """A method bound to an instance: without `self`."""
    if isinstance(method, staticmethod):
        return method.__func__
    function = _function(method)
    return function.__get__(object()) if inspect.isfunction(function) else None


def _trouble_with(called: Any, call: ast.Call) -> str:
    """The reason why a call fails; "" if it does not, or if there is no signature."""
    if isinstance(called, classmethod | staticmethod):
        called = _bound(called)
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return ""
    given = [None for one in call.args if not isinstance(one, ast.Starred)]
    named = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    has_more = len(given) < len(call.args) or len(named) < len(call.keywords)
    try:
        (signature.bind_partial if has_more else signature.bind)(*given, **named)
    except TypeError as error:
        return str(error)
    return ""


def _has(owner: Any, attribute: str) -> bool:
    """Whether a class or module has an attribute, or a class sets it on its instances."""
    if hasattr(owner, attribute):
        return True
    return inspect.isclass(owner) and any(attribute in _set_by(one) for one in owner.__mro__[:-1])


@cache
def _set_by(owner: Any) -> frozenset[str]:
    """Attributes that a class declares or its methods set, without those of its bases."""
    names = set(getattr(owner, "__annotations__", ()))
    with contextlib.suppress(OSError, TypeError):
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        names.update(
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        )
    return frozenset(names)


def _name_of(owner: Any) -> str:
    return str(getattr(owner, "__name__", owner))
