"""Methods: one file each, found by name, by entry point (group "bench.methods") or as package.module:Class."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from importlib.metadata import entry_points
from typing import Any, TypeGuard

from bench.errors import UserError, nearest
from bench.methods.base import Clip, Method, Parameters, TaskData, check_shapes, param
from bench.methods.zero_shot import template_features

__all__ = [
    "Clip",
    "Method",
    "Parameters",
    "TaskData",
    "check_shapes",
    "find_method",
    "method_names",
    "param",
    "template_features",
]


def _is_method(value: Any) -> TypeGuard[type[Method]]:
    """A subclass of `Method` with a name. Asked by `type`: on Python 3.10 `isinstance(list[int], type)` is true."""
    return issubclass(type(value), type) and issubclass(value, Method) and bool(value.name)


def _own() -> dict[str, type[Method]]:
    """The methods of this folder by name: every class with a `name` in every file."""
    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if _is_method(value):
                found[value.name] = value
    return found


def method_names() -> list[str]:
    """Names `--methods` takes, the folder's own in the order of the paper's table, then plug-ins'."""
    own = _own()
    plugins = [e.name for e in entry_points(group="bench.methods")]
    return sorted(own, key=lambda name: (own[name].order, name)) + sorted(set(plugins) - set(own))


def _broken(error: BaseException) -> str:
    """Why a plug-in's module could not be imported, and the last line of it that ran."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # it says where
        return said
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{said} ({last.filename}, line {last.lineno})"


def find_method(name: str, argument: str = "--methods") -> type[Method]:
    """The class of a name.

    Parameters
    ----------
    name : a method's name, an entry point's name, or "package.module:Class". argument : what gave it, for the error.

    Raises
    ------
    UserError : nothing of that name, or not a `Method`.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{argument} {name!r}: {error}; give package.module:Class on the import path") from error
        except (Exception, SystemExit) as error:
            raise UserError(f"{argument} {name!r}: {_broken(error)}") from error
    else:
        own = {known.lower(): method for known, method in _own().items()}
        if name.lower() in own:  # without a look through all installed packages
            return own[name.lower()]
        plugins = {e.name.lower(): e for e in entry_points(group="bench.methods")}
        if name.lower() not in plugins:
            raise UserError(f"{argument} {name!r} is unknown; {nearest(name, method_names())}")
        try:
            found = plugins[name.lower()].load()
        except (Exception, SystemExit) as error:
            raise UserError(f"{argument} {name!r}: {_broken(error)}") from error
    if not _is_method(found):
        raise UserError(f"{argument} {name!r} is not a method: subclass bench.methods.Method and give it a `name`")
    return found
