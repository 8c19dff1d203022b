"""What the command line's texts stand for: methods' parameters, and the variants a sweep makes of them."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from bench.errors import UserError, nearest

if TYPE_CHECKING:  # methods bring torch: the command line reads numbers without it
    from bench.methods import Method


@dataclass(frozen=True)
class Rule:
    """Values of one method that hold for some shot counts or some tasks (None: for all), by parameter."""

    shots: tuple[int, ...] | None
    tasks: tuple[str, ...] | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """One setting of a method: its parameters, and those of the method in the suite where nothing else is asked for.

    Attributes
    ----------
    label : what differs from the defaults ("" if nothing), in the parameters' own order, however it was asked for. Of a
        recipe with rules for the method: its name, and what differs from it. So all shots of a recipe are one row.
    rules : of the recipe, not yet applied; a later one stands above an earlier.
    by_task : the parameters of tasks that differ from `params`, by the task's name.
    shuffled : a control, trained with the tasks' names exchanged among them (bench/controls.py).
    given : by parameter, where a value comes from that is not the method's own: "-o coop.epochs=20", "recipe paper".
    """

    method: type[Method]
    params: Any
    defaults: Any
    label: str = ""
    rules: tuple[Rule, ...] = ()
    by_task: Mapping[str, Any] = field(default_factory=dict)
    shuffled: bool = False
    given: Mapping[str, str] = field(default_factory=dict)

    def at(self, shots: int, tasks: Sequence[str]) -> Variant:
        """The variant in cells of this shot count on these tasks: its rules applied."""
        rules = [rule for rule in self.rules if rule.shots is None or shots in rule.shots]
        params = replace(self.params, **{k: v for rule in rules if rule.tasks is None for k, v in rule.values.items()})
        by_task = {}
        for task in tasks:
            own = {k: v for rule in rules if rule.tasks and task in rule.tasks for k, v in rule.values.items()}
            if own and (changed := replace(params, **own)) != params:
                by_task[task] = changed
        return replace(self, params=params, rules=(), by_task=by_task)

    def make(self) -> Method:
        """A method with these parameters, not yet trained."""
        method = self.method(self.params)
        if self.by_task:
            method.by_task = self.by_task
        return method

    def by_task_values(self) -> dict[str, dict[str, Any]]:
        """What `by_task` changes, by task and parameter: as a record's configuration holds it."""
        names = [f.name for f in fields(self.params)]
        return {
            task: {n: getattr(own, n) for n in names if getattr(own, n) != getattr(self.params, n)}
            for task, own in self.by_task.items()
        }


def variants(
    methods: Sequence[type[Method]],
    options: Sequence[str],
    recipes: Sequence[Mapping[str, Mapping[str, Any]]],
    rules: Mapping[str, Sequence[Rule]] | None = None,
    recipe: str = "",
) -> list[Variant]:
    """Every combination of the values that `options` give, method by method.

    Parameters
    ----------
    options : "method.parameter=value" or "all.parameter=value"; several values with commas make a sweep. A value in
        double quotes keeps its commas: 'coop.words="a photo of a, well, "'.
    recipes : values by method name, or for "all" that have the parameter (but for methods without `common_recipe`);
        below `options`, above the methods' defaults, a later one above an earlier. The first is the suite's own: with
        it alone stand a variant's defaults.
    rules : of the last recipe, by method name: above its values, below `options`. recipe : that recipe's name.

    Raises
    ------
    UserError : unknown method or parameter, or a value that does not fit.
    """
    parsed = [_parse(option, [m.name for m in methods]) for option in options]
    out = []
    for method in methods:
        known = {f.name for f in fields(method.Params)}
        own: list[dict[str, Any]] = [{}]  # of the suite, then of what else is given
        given: dict[str, str] = {}
        for k, content in enumerate(recipes):
            common = content.get("all", {}) if method.common_recipe else {}
            values = {**common, **content.get(method.name, {})}
            found = {k: _convert(method, k, str(v), f"recipe {k}") for k, v in values.items() if k in known}
            own.append({**own[-1], **found})
            given |= dict.fromkeys(found, f"recipe {recipe}" if k else "the suite's recipe")
        base, defaults = own[-1], _make(method, own[min(1, len(recipes))], "recipe")
        ruled = (rules or {}).get(method.name, ())
        plain = _make(method, base, "recipe") if ruled else defaults
        given |= {name: f"recipe {recipe}" for rule in ruled for name in rule.values}
        axes: dict[str, list[Any]] = {}
        for target, name, texts, option in parsed:
            if target == method.name or (target == "all" and name in known):
                _check_cut(method, name, option)
                axes[name] = [_convert(method, name, text, f"-o {option}") for text in texts]
                given[name] = f"-o {option}"
        left = [replace(r, values={k: v for k, v in r.values.items() if k not in axes}) for r in ruled]
        dropped = {name for rule in ruled for name in rule.values if name in axes}  # by -o, which stands above
        for point in itertools.product(*axes.values()):
            chosen = dict(zip(axes, point, strict=True))
            params = _make(method, {**base, **chosen}, f"-o {method.name}")
            told = [f"recipe={recipe}"] if ruled else []
            for f in fields(params):
                value = getattr(params, f.name)
                if value != getattr(plain, f.name) or f.name in dropped:
                    told.append(f"{f.name}={value}")
            rest = tuple(rule for rule in left if rule.values)
            out.append(Variant(method, params, defaults, ",".join(told), rest, given=given))
    for target, name, _, option in parsed:
        if target == "all" and not any(name in {f.name for f in fields(m.Params)} for m in methods):
            raise UserError(f"-o {option}: none of the methods has a parameter {name!r}")
    return list({(v.method.name, str(v.params)): v for v in out}.values())


def option_texts(given: Any) -> tuple[str, ...]:
    """Options as texts, "coop.epochs=20", from such texts or from maps as YAML has them.

    given : a text, a map {"coop.epochs": 20} or {"coop": {"epochs": 20}} in which a list of values is a sweep, or a
        list of these.

    Raises
    ------
    UserError : anything else.
    """
    if isinstance(given, Mapping):
        return tuple(text for name, value in given.items() for text in _option_texts(str(name), value))
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Sequence) or not all(isinstance(part, str | Mapping) for part in given):
        raise UserError(f"-o {given!r}: write texts such as coop.epochs=20, or a map such as {{coop.epochs: 20}}")
    return tuple(text for part in given for text in option_texts(part))


def _option_texts(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner, one in value.items():
            yield from _option_texts(f"{name}.{inner}", one)
        return
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(one, str | int | float) for one in values):
        raise UserError(f"-o {name}: {value!r} is no value; write {name}: 20, or {name}: [20, 50] for a sweep")
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow([str(one) for one in values])  # a comma within a text stays in it
    yield f"{name}={row.getvalue()}"


def _parse(option: str, methods: Sequence[str]) -> tuple[str, str, list[str], str]:
    left, equals, right = option.partition("=")
    given, dot, name = left.strip().rpartition(".")
    target = {method.lower(): method for method in methods}.get(given.lower(), given.lower())
    if not (equals and dot):  # nothing after "=" is a value, too: no `words`
        raise UserError(f"-o {option!r}: write method.parameter=value, for example coop.epochs=20")
    if target != "all" and target not in methods:
        raise UserError(f"-o {option}: {given!r} is not among the methods of this run; {nearest(given, methods)}")
    try:
        texts = next(csv.reader([right], skipinitialspace=True, strict=True), []) or [""]
    except csv.Error as error:
        raise UserError(f"-o {option}: {error}; a value in double quotes ends with one, then comes a comma") from None
    return target, name, [text.strip() for text in texts], option


def _check_cut(method: type[Method], name: str, option: str) -> None:
    """Refuse a text with a blank after a comma, "a photo, of a": it was hardly meant as two values."""
    where, _, text = option.partition("=")
    quoted = re.search(r'(^|,)\s*"', text)
    if not quoted and re.search(r",\s+\S", text) and get_type_hints(method.Params).get(name) is str:
        several = re.sub(r",\s+", ",", text)
        raise UserError(
            f"-o {option}: one text with a comma, or several? One: -o '{where}=\"{text}\"'. "
            f"Several: -o '{where}={several}'"
        )


def _convert(method: type[Method], name: str, text: str, where: str) -> Any:
    """A parameter's value from its text, by the type of its field."""
    hints = get_type_hints(method.Params)
    if name not in {f.name for f in fields(method.Params)}:
        names = [f.name for f in fields(method.Params)]
        raise UserError(f"{where}: {method.name} has no parameter {name!r}; {nearest(name, names)}")
    kind = hints[name]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        by_text = {str(choice): choice for choice in choices}
        if text not in by_text:
            raise UserError(f"{where}: {text!r} is not one of {', '.join(by_text)}")
        return by_text[text]
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{where}: {text!r} is neither true nor false")
        return text.lower() == "true"
    try:
        return kind(text)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {text!r} is not a value of type {getattr(kind, '__name__', kind)}") from error


def restored(method: type[Method], values: Mapping[str, Any], where: str) -> Any:
    """A method's parameters as a record holds them."""
    return _make(method, converted(method, values, where), where)


def converted(method: type[Method], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of some of a method's parameters, each by the type of its field."""
    return {name: _convert(method, name, str(value), where) for name, value in values.items()}


def _make(method: type[Method], values: dict[str, Any], where: str) -> Any:
    try:
        return method.Params(**values)
    except UserError as error:
        raise UserError(f"{where}: {method.name}: {error}") from error


def texts(values: Sequence[str] | str) -> list[str]:
    """ "a, b" as ["a", "b"]; several texts as they are."""
    return names([values]) if isinstance(values, str) else list(values)


def names(texts: Sequence[str]) -> list[str]:
    """["a,b", "c"] as ["a", "b", "c"]: names with commas or blanks between them."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def numbers(texts: Sequence[str], argument: str, minimum: int) -> list[int]:
    """["1,2", "4"] as [1, 2, 4]: whole numbers from `minimum` on, each once."""
    text = " ".join(texts)
    try:
        found = [int(part) for part in re.split(r"\s*[,\s]\s*", text.strip())]
    except ValueError as error:
        raise UserError(f"{argument} {text!r}: write whole numbers, for example 1,2,4") from error
    if min(found) < minimum:
        raise UserError(f"{argument} {text!r}: {min(found)} is less than {minimum}")
    return list(dict.fromkeys(found))


UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def bytes_of(text: str) -> float:
    """The bytes in "4GB", "500 MB" or "2e9", where 1 GB = 1,000,000,000 bytes.

    Raises
    ------
    UserError : it is no size above 0.
    """
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        size = float(found[1]) * UNITS[found[2]] if found and not found[3] else 0.0
    except ValueError:
        size = 0.0
    if not size > 0:
        raise UserError(f"--memory-limit {text!r}: write a size such as 4GB or 500MB (1 GB is 1,000,000,000 bytes)")
    return size
