"""Values that a method chose by a search: what a record keeps of them, and what a reader of tables is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.datasets.fewshot import VAL_SHOTS

if TYPE_CHECKING:
    from bench.methods.base import Choice

FIELDS = {"values": dict, "accuracy": float, "images": int, "tried": int, "ties": int}


def kept(choices: Mapping[str, Choice]) -> dict[str, Any]:
    """What a record keeps: by task the fields of `bench.methods.base.Choice`; {} of none. Numbers have six digits."""
    found = {task: asdict(choice) for task, choice in choices.items()}
    for choice in found.values():
        choice["values"] = {name: _short(value) for name, value in choice["values"].items()}
        choice["accuracy"] = _short(choice["accuracy"])
    return found


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def footnote(choices: Mapping[str, Choice], val_shots: int = VAL_SHOTS) -> str:
    """The mark of a row whose values were chosen; "" where none were."""
    names = sorted({name for choice in choices.values() for name in choice.values})
    if not names:
        return ""
    tried = sorted({choice.tried for choice in choices.values()})
    among = f"{tried[0]} settings" if len(tried) == 1 else f"{tried[0]} to {tried[-1]} settings"
    return (
        f"{', '.join(names)}: chosen for each task among {among} on the few-shot validation images, "
        f"min(shots, {val_shots}) a class. Rows without this note saw no labels but those of the shots."
    )


def check(chosen: Mapping[str, Any]) -> None:
    """Raise ValueError unless it is what `kept` returns."""
    for task, choice in chosen.items():
        if not isinstance(choice, dict) or set(choice) != set(FIELDS):
            raise ValueError(f"what was chosen for {task!r} has not the fields {', '.join(FIELDS)}")
        numbers = [*choice["values"].values()] if isinstance(choice["values"], dict) else [None]
        numbers += [choice[name] for name in FIELDS if name != "values"]
        if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in numbers):
            raise ValueError(f"what was chosen for {task!r} is not in numbers")
        if not 0 <= choice["accuracy"] <= 100:
            raise ValueError(f"accuracy {choice['accuracy']} of what was chosen for {task!r} is no percentage")
