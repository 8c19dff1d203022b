"""Reading YAML files that anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError
from bench.files import NO_TEXT, is_text

DEEPEST = 100  # lists and maps within each other


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
