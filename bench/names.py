"""Names as the text tower reads them, checked before the first image is encoded."""

from __future__ import annotations

from collections.abc import Sequence

from bench.clip.text import TextTower
from bench.errors import UserError
from bench.methods.base import Names
from bench.options import Variant
from bench.progress import count

LONGEST = 60  # letters of a text, in the error
SHOWN = 3  # of a kind of mistake, in the error


def check_names(tower: TextTower, tasks: Sequence[Names], settings: Sequence[Variant]) -> None:
    """Refuse names that the methods of a run cannot work with; all of them in one error.

    Class names that become the same tokens (it ignores case and the spaces around punctuation, and
    reads HTML entities): their texts are equal, the second is never predicted. Fine where all methods know a class by
    its images alone. And texts that are longer than the tower reads, with the context vectors of each method.

    Parameters
    ----------
    tasks : in the suite's order. settings : the methods of the run with their parameters.

    Raises
    ------
    UserError : such names.
    """
    reading = [s.method for s in settings if s.method.reads_names]
    mistakes = [_alike(tower, task) for task in tasks] if reading else []
    mistakes += [_too_long(tower, task, settings) for task in tasks]
    found = [mistake for mistake in mistakes if mistake]
    if found:
        raise UserError("; ".join(found))


def _alike(tower: TextTower, task: Names) -> str:
    """Pairs of names with the same tokens."""
    by_tokens: dict[tuple[int, ...], str] = {}
    pairs = []
    for name in task.class_names:
        first = by_tokens.setdefault(tuple(tower.tokens(name)), name)
        if first != name:
            pairs.append(f"{first!r} and {name!r}")
    if not pairs:
        return ""
    return (
        f"task {task.name}: the same tokens stand for {_some(pairs)}: the second is never predicted. Rename one of "
        "each (in the suite file, the split file or the folder), or run only methods that read no names (protonet, "
        "linear-probe)"
    )


def _too_long(tower: TextTower, task: Names, settings: Sequence[Variant]) -> str:
    """Texts with more tokens than the tower reads, each with those methods whose context is the longest."""
    worst: dict[str, dict[int, set[str]]] = {}
    for setting in settings:
        for text, vectors in setting.method.texts(setting.by_task.get(task.name, setting.params), task):
            if tower.length(text, vectors) > tower.context_length:
                worst.setdefault(text, {}).setdefault(vectors, set()).add(setting.method.name)
    if not worst:
        return ""
    said = []
    for long, by_vectors in worst.items():
        text = long if len(long) <= LONGEST else f"{long[:LONGEST]}…"
        vectors = max(by_vectors)
        context = f" with {count(vectors, 'context vector')}" if vectors else ""
        methods = ", ".join(sorted(by_vectors[vectors]))
        said.append(f"{text!r} takes {tower.length(long, vectors)} tokens{context} ({methods})")
    return (
        f"task {task.name}: {_some(said)}; the tower reads {tower.context_length}. Shorten the text (in the suite "
        "file, the split file or the folder), or the context (-o METHOD.context=…)"
    )


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"{', '.join(texts[:SHOWN])}{more}"
