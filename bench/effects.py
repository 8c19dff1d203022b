"""Values that a run was given and that would change nothing in it: silence would let them pass for settings tried.

Refused are those that `-o METHOD.PARAMETER=` gives. Of values for several methods (`-o all.…`, a recipe), and of those
that only another protocol reads, a line at the start of the run says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.cells import Cell
from bench.errors import UserError
from bench.methods.prompt import PromptMethod
from bench.options import Variant
from bench.progress import count, note
from bench.protocols import Fold, Protocol
from bench.protocols.base2new import Base2New


@dataclass(frozen=True)
class Idle:
    """A parameter whose value changes nothing. elsewhere : another protocol or set of tasks would read it."""

    name: str
    why: str
    elsewhere: bool = False


def check_effects(
    settings: Sequence[Variant], shots: Sequence[int], protocol: Protocol, folds: Sequence[Fold], hide: bool | None
) -> None:
    """Refuse values without effect in a run of these settings, or say which they are.

    Raises
    ------
    UserError : `-o METHOD.PARAMETER=VALUE` changes nothing, or would end each of its cells.
    """
    told: dict[tuple[str, str, str], list[str]] = {}
    for variant in (setting.at(n, ()) for setting in settings for n in shots):
        if source := _draws_among_one(variant):
            raise UserError(f"{source}: {variant.method.name} trains each task alone, so that no step draws tasks")
        for idle in values_without_effect(variant, protocol, folds):
            method, source = variant.method.name, variant.given[idle.name]
            if source.startswith("-o ") and not source.lower().startswith("-o all.") and not idle.elsewhere:
                raise UserError(f"{source}: {idle.name} changes nothing: {idle.why}; leave it out")
            names = told.setdefault((source, method, idle.why), [])
            names += [idle.name] * (idle.name not in names)
    for (source, method, why), names in told.items():
        note(f"{source}: {method} has no use for {' and '.join(names)} here: {why}", hide)


def _draws_among_one(variant: Variant) -> str:
    """Where a setting got the values by which a step draws tasks, if it trains each task alone; else ""."""
    kind, p, plain = variant.method, variant.params, variant.method.Params()
    if not issubclass(kind, PromptMethod) or not kind(p).separate:
        return ""
    drawing = (name for name in ("task_temperature", "tasks_a_step") if getattr(p, name) != getattr(plain, name))
    return next((variant.given[name] for name in drawing if name in variant.given), "")


def check_views(cells: Sequence[Cell], asked: int | None, hide: bool | None) -> None:
    """Say which methods read fewer training views than the run asks for, or that none reads any."""
    read = dict.fromkeys((cell.config["method"], cell.views) for cell in cells) if asked else {}
    for method, views in read:
        if views and asked and views < asked:
            note(f"--views {asked}: {method} reads {views} of an image, one for each epoch", hide)
    if read and not any(views for _, views in read):
        note(f"--views {asked}: none of the methods reads training views", hide)


def values_without_effect(variant: Variant, protocol: Protocol, folds: Sequence[Fold]) -> Iterator[Idle]:
    """Of the values that a setting was given, those that change nothing."""
    kind, p = variant.method, variant.params
    given, plain = list(variant.given), kind.Params()
    changed = [name for name in given if getattr(p, name) != getattr(plain, name)]
    own = kind.name if kind.__module__.startswith("bench.methods.") else ""  # what a plug-in reads is not known
    if getattr(p, "search", "none") == "val":
        yield from (Idle(name, "search=val chooses it for each task") for name in given if name in kind.searched)
    fewest, most = (of(len(fold.trained) for fold in folds) for of in (min, max))
    if own and getattr(p, "tasks_a_step", 0) >= fewest:
        all_of = f"a step may have all {count(fewest, 'task')} of a training anyway"
        yield Idle("tasks_a_step", all_of, elsewhere=p.tasks_a_step < most)
    if own == "ape-t" and "gamma" in given:
        yield Idle("gamma", "the images' weights are learned")
    if own == "softcpt-residual" and p.node_scale == 0:
        of_nodes = [name for name in changed if name in ("nodes", "shuffle", "leaf_decay")]
        yield from (Idle(name, "node_scale=0 leaves no nodes") for name in of_nodes)
    if own == "softcpt-graph":
        of_graph = [name for name in changed if name in ("name_weight", "temperature", "nearest", "graph", "draw")]
        if p.a == 0:
            yield from (Idle(name, "a=0 takes nothing from other tasks") for name in of_graph)
        elif p.graph == "uniform":
            of_names = [name for name in of_graph if name in ("name_weight", "temperature")]
            yield from (Idle(name, "with graph=uniform all tasks are alike") for name in of_names)
        elif p.nearest >= fewest:
            few = f"a task has {count(fewest - 1, 'other')} to train with, and 0 takes all"
            yield Idle("nearest", few, elsewhere=p.nearest < most)
    if own == "lasp" and p.text_weight == 0:
        of_loss = [name for name in changed if name in ("noise", "names")]
        yield from (Idle(name, "text_weight=0 leaves its sentences out") for name in of_loss)
    elif own == "lasp" and p.names == "all" and not isinstance(protocol, Base2New):
        yield Idle("names", f"--protocol {protocol.name} has no classes that are only scored", elsewhere=True)
    if own and all(set(fold.scored) <= set(fold.trained) for fold in folds):
        why = f"--protocol {protocol.name} scores no task that was not trained on"
        yield from (Idle(name, why, elsewhere=True) for name in changed if name in ("span", "unseen"))

