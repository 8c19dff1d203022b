"""Trees of tasks, for methods that read where a task stands (`path` in a suite file).

A node is known by the names from the top down to it; () is the root, which every task is below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import Names, Parameters, generator, param

Node = tuple[str, ...]
ROOT: Node = ()


@dataclass(frozen=True)
class TreeParams(Parameters):
    """What methods have that read the suite's tree."""

    shuffle: int = param(
        0,
        "control: tasks take each other's places in the tree, drawn with this seed: a random tree of the same shape; "
        "0: the suite file's tree",
        minimum=0,
    )


def places(tasks: Sequence[Names], shuffle: int) -> list[Node]:
    """The node that each task stands below. shuffle : see `TreeParams`; what is drawn depends on the order of tasks."""
    paths = [task.path for task in tasks]
    if not shuffle:
        return paths
    return [paths[i] for i in torch.randperm(len(paths), generator=generator(shuffle, "tree")).tolist()]


def place_of_new(task: Names, seen: Sequence[Node], shuffle: int) -> Node:
    """The node that a task stands below which was not trained on; shuffled, that of some task that was."""
    if not shuffle:
        return task.path
    return seen[int(torch.randint(len(seen), (1,), generator=generator(shuffle, "tree", task.name)))]


def branching(paths: Sequence[Node]) -> list[Node]:
    """Nodes below the root with at least two children (nodes or tasks): those near the top first, then by name.

    A node with one child says nothing that the child does not.
    """
    children: dict[Node, set[str | int]] = {}
    for t, path in enumerate(paths):
        for depth in range(1, len(path) + 1):
            children.setdefault(path[:depth], set()).add(path[depth] if depth < len(path) else t)
    return sorted((node for node, own in children.items() if len(own) > 1), key=lambda node: (len(node), node))


def inner_nodes(paths: Sequence[Node]) -> list[Node]:
    """The root, then the nodes with at least two children that are not above all tasks, as the root is."""
    several = branching(paths)
    return [ROOT, *(node for node in several if not all(path[: len(node)] == node for path in paths))]


def above(paths: Sequence[Node], nodes: Sequence[Node]) -> Tensor:
    """[T, N], 1 where a node is above a task, else 0."""
    rows = [[float(path[: len(node)] == node) for node in nodes] for path in paths]
    return torch.tensor(rows).view(len(paths), len(nodes))
