"""How alike tasks are to a trained SoftCPT: cosines of their task features, and of the contexts made from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from bench.methods import Method
    from bench.saved import Kept

OF = ("features", "contexts")
IN_RECORDS = 100  # tasks whose similarity a record holds, at most: 10,000 of them would fill a gigabyte


def task_vectors(method: Method) -> dict[str, Tensor] | None:
    """Of a trained method: "features" [T, d], what the text tower makes of each task's name after the learned task
    context; "contexts" [T, L·w], the context of each task's classes (the mean over classes where each has its own).
    None where tasks have no features, or there is only one task."""
    import torch

    from bench.methods.prompt import PromptMethod

    if not isinstance(method, PromptMethod) or len(method.tasks) < 2:
        return None
    tasks = list(range(len(method.tasks)))
    with torch.no_grad():
        prompts = method.task_prompts(tasks)
        if prompts is None:
            return None
        features = method.clip.tower.encode([prompts])[0].reshape(len(tasks), -1)
        contexts = method.contexts(tasks, [task.class_names for task in method.tasks])
    return {"features": features, "contexts": torch.stack([own.mean(dim=0).flatten() for own in contexts])}


def cosines(rows: Tensor) -> Tensor:
    """[T, T] of rows [T, d], in double precision."""
    import torch.nn.functional as F

    unit = F.normalize(rows.double(), dim=-1)
    return (unit @ unit.T).clamp(-1, 1)


def kept(method: Method, most: float = math.inf) -> dict[str, Any]:
    """What a record keeps: {"tasks": names, "features": [[…]], "contexts": [[…]]}, four decimals; or {}, also of more
    than `most` tasks."""
    vectors = task_vectors(method) if len(getattr(method, "tasks", ())) <= most else None
    if vectors is None:
        return {}
    found: dict[str, Any] = {"tasks": [task.name for task in method.tasks]}
    for name, rows in vectors.items():
        found[name] = [[round(x, 4) for x in row] for row in cosines(rows).tolist()]
    return found


def check(similarity: dict[str, Any]) -> None:
    """Raise ValueError unless it is what `kept` returns."""
    if not similarity:
        return
    names = similarity.get("tasks")
    if set(similarity) != {"tasks", *OF} or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError("its similarity has no tasks, features and contexts")
    for of in OF:
        rows = similarity[of]
        square = isinstance(rows, list) and len(rows) == len(names)
        square = square and all(isinstance(row, list) and len(row) == len(names) for row in rows)
        if not square or not all(isinstance(x, (int, float)) and -1 <= x <= 1 for row in rows for x in row):
            raise ValueError(f"its similarity of {of} is no matrix of cosines")


def table(similarity: dict[str, Any], of: str = "features") -> pd.DataFrame:
    """A record's `similarity` as a matrix, tasks × tasks.

    Raises
    ------
    UserError : it is neither of "features" nor of "contexts".
    """
    if of not in OF:
        raise UserError(f"of={of!r}; {nearest(of, OF)}")
    names = similarity["tasks"]
    return pd.DataFrame(similarity[of], pd.Index(names, name="task"), names)


def similarity(cell: Kept, of: str = "features") -> pd.DataFrame:
    """Cosine similarity of a loaded cell's tasks, tasks × tasks.

    Parameters
    ----------
    cell : what `bench.load_cell` returns, of a method of the SoftCPT family trained on several tasks.
    of : "features", what the method makes of the tasks' names, or "contexts", what stands before their class names.

    Raises
    ------
    UserError : its method has no task features, or `of` is neither.
    """
    found = kept(cell.method)
    if not found:
        raise UserError(f"{cell.method.name}, trained on {len(cell.tasks)} tasks, has no features to compare tasks by")
    return table(found, of)
