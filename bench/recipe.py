"""Recipes: parameter values for all methods or for one, as data. `--recipe paper`, or a file of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, get_type_hints

from bench.datasets.spec import Suite, load_suite, suite_names
from bench.datasets.yamlfiles import read_yaml
from bench.errors import UserError, nearest
from bench.files import user_path
from bench.methods import Method, find_method, method_names
from bench.options import Rule, converted, restored

PACKAGED = Path(__file__).parent / "recipes"
ABOUT = ("title", "source", "views", "when")  # keys of a recipe file that are not methods


@dataclass(frozen=True)
class Recipe:
    """What a recipe file says.

    Attributes
    ----------
    values : by method name, "all" for every method that has the parameter.
    rules : by method name, values for some shot counts or tasks: above `values`, a later one above an earlier.
    views : per image; None: one per epoch.
    """

    name: str
    title: str
    values: Mapping[str, Mapping[str, Any]]
    rules: Mapping[str, Sequence[Rule]]
    views: int | None

    def check_tasks(self, suite: Suite) -> None:
        """Refuse a rule for a task that neither this suite has nor one of the bench's: it would never hold."""
        named = {task for rule in chain(*self.rules.values()) for task in rule.tasks or ()}
        if not named:
            return
        known = {task.name for s in (suite, *map(load_suite, suite_names())) for task in s.tasks}
        for task in sorted(named - known):
            raise UserError(f"recipe {self.name}: `when`: no suite has a task {task!r}; {nearest(task, known)}")


def recipe_names() -> list[str]:
    """The recipes that come with the bench."""
    return sorted(file.stem for file in PACKAGED.glob("*.yaml"))


def load_recipe(name: str, methods: Sequence[type[Method]] = ()) -> Recipe:
    """A recipe by its name or from the path of its YAML file.

    Parameters
    ----------
    methods : those that the file may name besides the bench's own.

    Raises
    ------
    UserError : no such recipe; a file that names an unknown method or parameter, or a value that does not fit.
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
    about = {key: content.pop(key, None) for key in ABOUT}
    for key in ("title", "source"):
        if not isinstance(about[key], str | None):
            raise UserError(f"{file}: `{key}` must be text, not {about[key]!r} (put it in quotes)")
    views = about["views"]
    if views is not None and (type(views) is not int or views < 1):
        raise UserError(f"{file}: `views` must be a whole number from 1 up, or empty for one per epoch, not {views!r}")
    check_values(str(file), content, methods)
    rules = _rules(str(file), about["when"], methods)
    return Recipe(file.stem, about["title"] or file.stem, content, rules, views)


def _rules(where: str, given: Any, methods: Sequence[type[Method]]) -> dict[str, list[Rule]]:
    """The entries of `when`: a map each of `shots` or `task` (one or a list), and values by method."""
    rules: dict[str, list[Rule]] = {}
    if not isinstance(given, list | None):
        raise UserError(f"{where}: `when` must be a list of maps such as {{shots: [8, 16], coop: {{epochs: 200}}}}")
    for number, entry in enumerate(given or (), start=1):
        here = f"{where}: `when`, entry {number}"
        if not isinstance(entry, Mapping) or not {"shots", "task"} & set(entry):
            raise UserError(f"{here} must be a map with `shots` or `task`, and what holds for them, not {entry!r:.80}")
        values = {name: value for name, value in entry.items() if name not in ("shots", "task")}
        shots, tasks = _several(here, entry, "shots", int), _several(here, entry, "task", str)
        if "all" in values or not values:
            raise UserError(f"{here}: name the methods that it is for, such as coop: {{epochs: 200}}")
        check_values(here, values, methods)
        for name, own in values.items():
            method = find_method(name) if name in method_names() else next(m for m in methods if m.name == name)
            may = {f.name for f in fields(method.Params) if f.metadata.get("by_task")}
            if tasks and (fixed := set(own) - may):
                said = f"by task it has {', '.join(sorted(may))}" if may else "it has none that may differ"
                raise UserError(f"{here}: {name}: `{min(fixed)}` is one for all tasks; {said}")
            rules.setdefault(name, []).append(Rule(shots, tasks, converted(method, own, here)))
    return rules


def _several(here: str, entry: Mapping[str, Any], name: str, kind: type) -> tuple[Any, ...] | None:
    """One value or several of an entry, None where it has none of this name."""
    if name not in entry:
        return None
    found = entry[name] if isinstance(entry[name], list) else [entry[name]]
    if not found or any(type(value) is not kind for value in found):
        wanted = "numbers such as [8, 16]" if kind is int else "names of tasks such as [DTD]"
        raise UserError(f"{here}: `{name}` must be {wanted}, not {entry[name]!r}")
    return tuple(found)


def check_values(where: str, values: Mapping[str, Any], methods: Sequence[type[Method]] = ()) -> None:
    """Refuse what no method has as a parameter, or values of another type; also for methods that do not run.

    Parameters
    ----------
    where : begins the error. values : by method name, "all" for every method that has the parameter.
    methods : those that may be named besides the bench's own.
    """
    known = {m.name: m for m in [*map(find_method, method_names()), *methods]}
    for name, given in values.items():
        if name != "all" and name not in known:
            others = [] if "`when`" in where else ABOUT
            raise UserError(f"{where}: {name!r} is not a method; {nearest(str(name), ['all', *known, *others])}")
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: `{name}` must be a map such as {{epochs: 20}}, not {given!r}")
        concerned = list(known.values()) if name == "all" else [known[name]]
        has = {m.name: {f.name for f in fields(m.Params)} for m in concerned}
        for parameter, value in given.items():
            every = set().union(*has.values())
            if parameter not in every:
                none = "no method has a" if name == "all" else f"{name} has no"
                raise UserError(f"{where}: {none} parameter {parameter!r}; {nearest(str(parameter), every)}")
            if not isinstance(value, str | int | float):
                raise UserError(f"{where}: {name}: `{parameter}` must be a number or a text, not {value!r}")
            for method in concerned:
                if parameter in has[method.name]:
                    _check_value(f"{where}: {name}: `{parameter}`", method, parameter, value)


def _check_value(where: str, method: type[Method], parameter: str, value: object) -> None:
    if get_type_hints(method.Params)[parameter] is str and not isinstance(value, str):
        raise UserError(f"{where} must be text, not {value!r} (put it in quotes)")  # YAML reads `no` as false
    restored(method, {parameter: value}, where)
