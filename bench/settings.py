"""How settings are declared and checked: the fields that runs and reports have, and what is made of them.

A field knows its help, bounds and choices. The command line's options, a function's arguments and a file's keys come
from it, and are checked by it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from bench.errors import UserError, nearest
from bench.files import NO_TEXT, is_text, user_path
from bench.options import names, numbers, option_texts

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
Names = str | Sequence[str]
Numbers = int | Sequence[int]
ALIASES = {"tasks": "--task", "methods": "--method", "shots": "--shot", "seeds": "--seed"}  # one of what may be several
FILES = (".yaml", ".yml", ".json", ".safetensors", ".pt")


def setting(
    default: Any,
    help: str,
    group: str,
    *,
    metavar: str | None = None,
    option: str | None = None,
    choices: Sequence[str] = (),
    minimum: int | None = None,
    path: str = "",
    named: Sequence[str] = (),
) -> Any:
    """A field of a run or a report.

    Parameters
    ----------
    option : its option, where that is not the field's name: "-o", or "--discard" for a switch that turns it off.
    choices, minimum : what is allowed. path : "always" a file or folder, or "maybe", where it may be a name.
    named : values that are names all the same.
    """
    about = {"help": help, "group": group, "metavar": metavar, "option": option}
    values = {"choices": choices, "minimum": minimum, "path": path, "named": named}
    return field(default=default, metadata={**about, **values})


@dataclass(frozen=True)
class Settings:
    """What a command takes: fields made by `setting`, checked when it is made."""

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))


def option_of(f: Field[Any]) -> str:
    """The command line's option for a field."""
    return f.metadata["option"] or "--" + f.name.replace("_", "-")


def is_list(f: Field[Any]) -> bool:
    """Whether a field takes several values."""
    return str(f.type).startswith(("Names", "Numbers"))


def many(value: T | Sequence[T]) -> tuple[T, ...]:
    """A list that may be given as a single value; a text is one value."""
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _checked(f: Field[Any], value: Any) -> Any:
    """A field's value as its command has it: lists as tuples, `~` expanded, and within bounds."""
    option, kind, minimum = option_of(f), str(f.type), f.metadata["minimum"]
    if value is None and f.default is None:
        return None
    if f.name == "options":
        found = option_texts(value)
        _check_text(option, *found)
        return found
    if kind.startswith("Names"):
        return _names(many(value), option, f.metadata["choices"])
    if kind.startswith("Numbers"):
        texts = [str(part) for part in many(value)]
        if not texts:
            raise UserError(f"{option}: none given")
        return tuple(numbers(texts, option, minimum))
    if kind.startswith("bool"):
        if not isinstance(value, bool):
            raise UserError(f"{option} {value!r}: write true or false")
        return value
    if kind.startswith("int"):
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value).strip()):
            raise UserError(f"{option} {value!r}: write a whole number")
        if int(value) < minimum:
            raise UserError(f"{option} {value}: at least {minimum}")
        return int(value)
    if not isinstance(value, (str, Path)):
        raise UserError(f"{option} {value!r}: write a text")
    kept = Path(value).name if f.metadata["path"] == "maybe" else "" if f.metadata["path"] else str(value)
    _check_text(option, kept)
    if f.metadata["choices"] and value not in f.metadata["choices"]:
        raise UserError(f"{option} {value!r}: one of {', '.join(f.metadata['choices'])}")
    return str(user_path(value)) if str(value).startswith("~") and f.metadata["path"] else str(value)


def _check_text(option: str, *texts: str) -> None:
    """Refuse what no record could hold."""
    for text in texts:
        if not is_text(text):
            raise UserError(f"{option} {text!r}: holds {NO_TEXT}")


def _names(texts: tuple[str, ...], option: str, choices: Sequence[str]) -> tuple[str, ...]:
    found = names([str(text) for text in texts])
    if not found:
        raise UserError(f"{option}: none given; name some, or leave {option} out")
    _check_text(option, *found)
    for text in found:
        if choices and text not in choices:
            raise UserError(f"{option} {text!r}: one of {', '.join(choices)}")
    return ("all",) if option == "--methods" and "all" in found else tuple(found)


def is_path(f: Field[Any], value: Any) -> bool:
    """Whether a field's value is a file or folder, not a name."""
    kind = f.metadata["path"]
    if not isinstance(value, str) or value in f.metadata["named"]:
        return False
    return kind == "always" or (kind == "maybe" and _looks_like_path(value))


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", "/")) or text.endswith(FILES)


def as_arguments(config: Callable[P, C], work: Callable[[C], T]) -> Callable[P, T]:
    """A function of `Settings` as one of their fields: their names, types and defaults are its signature."""
    signature = inspect.signature(config)
    name = work.__name__.lstrip("_")

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for key in kwargs:
            if key not in signature.parameters:
                raise TypeError(f"bench.{name}() has no argument {key!r}; {nearest(key, signature.parameters)}")
        return work(config(*args, **kwargs))

    call.__name__ = call.__qualname__ = name
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=inspect.signature(work).return_annotation
    )
    return call
