"""Reading YAML files that anybody may have written, and what their values may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.errors import UserError, nearest
from bench.files import NO_TEXT, is_text

DEEPEST = 100  # lists and maps within each other
TYPE_NAMES: dict[Any, str] = {
    **{str: "text", bool: "true or false", int: "a whole number"},
    **{list: "a list of texts", dict: "a map of texts", Mapping: "a map", Sequence: "a list of maps"},
}


class Key(NamedTuple):
    """What a key's value may be: of a type (a `list` or `dict` is of texts), a number of at least `minimum`."""

    kind: Any
    default: Any = None
    minimum: int = 0
    needed: bool = False


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that stands twice instead of keeping the last, and half a character."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= DEEPEST:  # reading them takes a time that grows with the square of their number
            said = f"more than {DEEPEST} brackets within each other"
            raise yaml.scanner.ScannerError(None, None, said, self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if is_text(value):
            return value
        try:  # JSON writes a smile as "\\ud83d\\ude00"
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            said = f"{value!r} holds {NO_TEXT}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> Mapping[str, Any]:
    """A YAML file's map; anything else is an error that names the file."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - made from SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be a map of names and values (of a suite: `title` and `tasks`)")
    return content


# What a value may be --------------------------------------------------------------------------------------


def values_of(at: str, content: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values of all keys, each as it must be; those that are not given have their defaults."""
    check_keys(at, content, keys)
    for name, key in keys.items():
        if content.get(name) is not None:
            must_be(f"{at}: `{name}`", content[name], key)
        elif key.needed:
            raise UserError(f"{at}: `{name}` is missing; it must be {TYPE_NAMES[key.kind]}")
    return {name: key.default if content.get(name) is None else content[name] for name, key in keys.items()}


def check_keys(at: str, content: Mapping[Any, Any], keys: Mapping[str, Key]) -> None:
    """Refuse a key that is none of these."""
    for key in content:
        if key not in keys:
            raise UserError(f"{at}: unknown key {str(key)!r}; {nearest(str(key), keys)}")


def must_be(what: str, value: object, key: Key) -> None:
    """Refuse a value of another type, or a number that is too small. what : it, in the message."""
    if not is_kind(value, key.kind) or (key.minimum and isinstance(value, int) and value < key.minimum):
        bound = f" from {key.minimum} up" if key.minimum else ""
        quotes = " (put it in quotes)" if key.kind in (str, list, dict) else ""
        raise UserError(f"{what} must be {TYPE_NAMES[key.kind]}{bound}, not {value!r}{quotes}")


def is_kind(value: object, kind: Any) -> bool:
    """Whether a YAML value is of a kind; entries of lists and maps are texts (an unquoted `no` is not)."""
    if kind is list:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(entry, str) for pair in value.items() for entry in pair)
    if kind is Sequence:
        return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))
