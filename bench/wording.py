"""The hand-written sentences of a class: a task's template or templates with its name, or its own descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Worded(Protocol):
    """What has hand-written sentences: a suite's task, and a method's `TaskData`."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def template(self) -> str | tuple[str, ...]: ...  # with one "{}" each
    @property
    def descriptions(self) -> Mapping[str, Sequence[str]]: ...  # class name -> sentences, instead of the templates


def sentences(task: Worded, class_name: str) -> list[str]:
    """The sentences of a class, which need not be one of the task's own (unseen classes)."""
    templates = [task.template] if isinstance(task.template, str) else task.template
    return list(task.descriptions.get(class_name, ())) or [template.format(class_name) for template in templates]


def wording(task: Worded) -> Any:
    """What a cell's key holds of a task's sentences; where there is one template and nothing else, the template."""
    if not task.descriptions:
        return task.template
    return [task.template, [sentences(task, name) for name in task.class_names]]
