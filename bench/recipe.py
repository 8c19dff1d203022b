"""Recipes: parameter values for all methods or for one, as data. `--recipe paper`, or a file of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.datasets.suites import read_yaml
from bench.errors import UserError, nearest
from bench.files import user_path
from bench.methods import find_method, method_names

PACKAGED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """Values by method name, "all" for every method that has the parameter; views an image (None: one an epoch)."""

    name: str
    title: str
    values: Mapping[str, Mapping[str, Any]]
    views: int | None


def recipe_names() -> list[str]:
    """The recipes that come with the bench."""
    return sorted(file.stem for file in PACKAGED.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by its name or from the path of its YAML file.

    Raises
    ------
    UserError : no such recipe, or a file that names an unknown method or parameter.
    """
    packaged = PACKAGED / f"{name}.yaml"
    if name in recipe_names():
        file = packaged
    elif name.endswith((".yaml", ".yml")):
        file = user_path(name)
        if not file.is_file():
            raise UserError(f"--recipe {name}: no such file")
    else:
        raise UserError(f"--recipe {name!r} is unknown; {nearest(name, recipe_names())}, or the path of a YAML file")
    content = dict(read_yaml(file))
    title, views, _ = str(content.pop("title", file.stem)), content.pop("views", None), content.pop("source", None)
    if views is not None and (type(views) is not int or views < 1):
        raise UserError(f"{file}: `views` must be a whole number from 1 up, or empty for one an epoch, not {views!r}")
    known = {m: {f.name for f in fields(find_method(m).Params)} for m in method_names()}
    known["all"] = set().union(*known.values())
    for method, values in content.items():
        if method not in known:
            raise UserError(f"{file}: {method!r} is no method; {nearest(str(method), known)}")
        if not isinstance(values, Mapping):
            raise UserError(f"{file}: `{method}` must be a map such as {{epochs: 20}}, not {values!r}")
        for parameter in values:
            if parameter not in known[method]:
                raise UserError(
                    f"{file}: {method} has no parameter {parameter!r}; {nearest(str(parameter), known[method])}"
                )
    return Recipe(file.stem, title, content, views)
