"""How the tasks of trained cells relate: what each scores in the others' contexts, how alike they are, and what of it
goes together.

All of it is read from learned parameters, image features and records; nothing is trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench import association, gains
from bench.affinity import affinity, gradients
from bench.errors import UserError
from bench.evaluate import scored_features
from bench.features import View
from bench.likeness import cosines, task_vectors
from bench.methods import Clip, Method, TaskData, find_method
from bench.methods.prompt import PromptMethod
from bench.methods.softcpt import SoftCPT
from bench.metrics import METRICS
from bench.numerics import method_code, numerics
from bench.options import restored
from bench.plan import Plan
from bench.progress import bar, count
from bench.protocols import Part
from bench.records import KEY_SHOWN, Record
from bench.relating import described, fits, setting_of
from bench.saved import Kept, load_cell
from bench.scoring import scored

NAMES_AT_ONCE = 256  # that the text tower reads in one call
SIGNIFICANT = 0.05
SWAP, PAIRS, LEFT_OUT = "swap", "pair gain", "left-out gain"
BOTH = "kernel × gradients"
SIMILARITIES = (
    "text", "kernel", "gradients", BOTH, "affinity", "contexts", "contexts change", "functional", "visual",
    "class names",
)  # fmt: skip

# Ours; by them contexts are compared beyond the tasks' own classes.
NOUNS = """apple arm baby bag ball bed bell bicycle bird boat book bottle bowl box boy branch bread bridge brush bucket
building bus button cake camera car cat chair child church city clock cloud coat coin cow cup desk dog door dress drum
ear egg engine eye face farm feather fence field finger fire fish flag floor flower foot forest fork garden girl glass
glove goat hand hat hill horse house island key kitchen knife lake lamp leaf letter man map moon mountain mouth nail
nose ocean orange paper pen picture plate river road rock roof rope sand ship shoe sky"""

Matrix = NDArray[np.float64]
Tick = Callable[[], object]
"""Called after each piece of work."""


@dataclass(frozen=True)
class TaskTest:
    """A task's test images: features in consecutive blocks [m, d], their labels [n], and the task's metric."""

    blocks: Sequence[Tensor]
    labels: Tensor
    metric: str


def why_not(method: Method) -> str:
    """Why a trained method has no contexts to compare tasks by; "" where it has."""
    if not isinstance(method, PromptMethod):
        return "it learns no prompts"
    if method.no_new_classes:
        return f"its prompts fit no other task's classes: {method.no_new_classes}"
    if type(method).predict is not PromptMethod.predict:
        return "its prompts depend on the image"
    if len(method.tasks) < 2:
        return "it was trained on one task: there is nothing to compare"
    with torch.no_grad():
        names = [["a"]] * len(method.tasks)
        first, *others = method.contexts(list(range(len(names))), names)
    if all(torch.equal(first, other) for other in others):
        return "all tasks have the same context"
    return ""


def swapped(method: Method, tests: Sequence[TaskTest], device: torch.device, tick: Tick = lambda: None) -> Matrix:
    """[T, T], percent: row i, column j is what task j's test images score among task j's classes in the context of
    task i. On the diagonal stand the method's own accuracies.

    tests : of each of the method's tasks.
    """
    found = np.zeros((len(tests), len(tests)))
    for i, context in enumerate(method.tasks):
        for j, (names, test) in enumerate(zip(method.tasks, tests, strict=True)):
            found[i, j] = accuracy(method, context, test, names.class_names, device)
            tick()
    return found


def zero_shot(clip: Clip, tasks: Sequence[TaskData], tests: Sequence[TaskTest], device: torch.device) -> Matrix:
    """[T], percent: of the tasks' own hand-written templates."""
    method = find_method("zero-shot")()
    method.restore(clip, tasks, {})
    pairs = zip(tasks, tests, strict=True)
    return np.array([accuracy(method, task, test, task.class_names, device) for task, test in pairs])


def accuracy(method: Method, task: TaskData, test: TaskTest, class_names: Sequence[str], device: torch.device) -> float:
    """By the test's metric, percent, among these classes: with what the method has learned for `task`."""
    part = Part("all", torch.arange(len(test.labels)), test.labels, len(class_names), tuple(class_names))
    return METRICS[test.metric](scored(method, task, test.blocks, part, device).predicted, test.labels)


def probes(tasks: Sequence[TaskData]) -> list[str]:
    """The names that `functional` reads: every class name of the tasks and a hundred common nouns, each once."""
    return list(dict.fromkeys([*chain.from_iterable(task.class_names for task in tasks), *NOUNS.split()]))


@torch.no_grad()
def functional(method: PromptMethod, tick: Tick = lambda: None) -> Matrix:
    """[T, T]: cosines of what contexts do to names.

    Task i's shift is, for all `probes`, the unit text feature of the name in its context minus that of the name alone
    ("<name>."), one long vector. Contexts that share no start can be compared by it (CoOp's), which their own numbers
    cannot. Of several contexts of a task, the mean over them.
    """
    names = probes(method.tasks)
    chunks = [names[i : i + NAMES_AT_ONCE] for i in range(0, len(names), NAMES_AT_ONCE)]
    plain = F.normalize(method.clip.tower.encode_texts([f"{name}." for name in names]), dim=-1)
    shifts = []
    for t in range(len(method.tasks)):
        found = []
        for chunk in chunks:
            (text,) = method.text_features([t], [chunk])  # C, d or P, C, d
            found.append(text.reshape(-1, len(chunk), text.shape[-1]).mean(dim=0))
            tick()
        shifts.append((torch.cat(found) - plain).flatten())
    return cosines(torch.stack(shifts)).cpu().numpy()


def text(clip: Clip, tasks: Sequence[TaskData]) -> Matrix:
    """[T, T]: cosines of the unit text features of "<task name>.", less their mean over tasks. Uncentred ones lie close
    together. Two tasks are always opposite to each other: -1."""
    unit = F.normalize(clip.tower.encode_texts([f"{task.task_name}." for task in tasks]).double(), dim=-1)
    return cosines(unit - unit.mean(dim=0)).cpu().numpy()


def overlap(tasks: Sequence[TaskData]) -> Matrix:
    """[T, T]: class names that two tasks share, of all that they have together (Jaccard); case does not count."""
    names = [{name.casefold() for name in task.class_names} for task in tasks]
    return np.array([[len(a & b) / len(a | b) for b in names] for a in names])


def visual(images: Sequence[Tensor]) -> Matrix:
    """[T, T]: cosines of tasks' mean unit image features; `images` [n, d] are of each task's few-shot set."""
    return cosines(torch.stack([F.normalize(own.double(), dim=-1).mean(dim=0) for own in images])).cpu().numpy()


def start_of(kept: Kept) -> Method | None:
    """The cell's method before its training, from its seed; None where the code that made its start has changed."""
    trained = kept.method
    same = kept.config.get("code") == method_code(type(trained)) and kept.config.get("numerics") == numerics()
    if not same or not isinstance(trained, PromptMethod):
        return None
    start = type(trained)(trained.params)
    start.by_task = trained.by_task
    start.setup(kept.backbone, kept.tasks, int(kept.config["seed"]))
    return start


def of_vectors(method: Method) -> tuple[Matrix | None, dict[str, Matrix]]:
    """Of a method that makes contexts from task features: [T, T] by name, "contexts", cosines of the contexts.

    Where they are F · P, F [T, d] what the meta-network reads (a graph's smoothed features), also "kernel", K = F Fᵀ,
    by which it shares what tasks learn, and before these the spectrum [T] of K. Of other methods None, {}.
    """
    vectors = task_vectors(method)
    if vectors is None:
        return None, {}
    made = {"contexts": cosines(vectors["contexts"]).cpu().numpy()}
    if not isinstance(method, SoftCPT) or "projection" not in method.learned:
        return None, made
    with torch.no_grad():
        features, projection = method.task_input(range(len(method.tasks))), method.learned["projection"]
        if features.shape[1] != len(projection):  # of low rank
            return None, made
        rest = vectors["contexts"] - features @ projection
    if rest.norm() > 1e-3 * vectors["contexts"].norm():  # other things add to it
        return None, made
    features = features.double().cpu()
    return association.spectrum(features.numpy()), {"kernel": (features @ features.T).numpy(), **made}


# ---- several seeds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relations:
    """about : the cells, in words. frames : as `bench.relate` returns them. notes : what a reader must know."""

    about: str
    demo: bool
    frames: dict[str, pd.DataFrame]
    notes: list[str]


def measure(
    chosen: Sequence[tuple[Path, Record]], there: Sequence[Record], plan: Plan, own_class: str | None = None
) -> Relations:
    """All of `bench.relate`.

    Parameters
    ----------
    chosen : cells that differ in the seed alone, with their records' paths. there : all finished cells, for gains.
    own_class : "package.module:Class" of a method that is not the bench's own.

    Raises
    ------
    UserError : the method has no contexts to compare tasks by.
    """
    first = chosen[0][1]
    load = partial(load_cell, method=own_class, loaded=plan.backbone)
    kept = load(str(chosen[0][0]))
    if why := why_not(kept.method):
        raise UserError(f"cell {first.key[:KEY_SHOWN]}: {kept.method.name} has no contexts to relate tasks by: {why}")
    tasks = [task.name for task in kept.tasks]
    device, tests = plan.backbone.device, _tests(plan, tasks, kept.method.image)
    plain = zero_shot(plan.backbone, kept.tasks, _tests(plan, tasks, "pooled"), device)
    seeds: dict[str, list[Matrix]] = {}
    spectra: dict[str, list[Matrix]] = {}
    off = 0.0  # points between an accuracy here and in its record
    chunks = -(-len(probes(kept.tasks)) // NAMES_AT_ONCE)
    work = len(chosen) * len(tasks) * (len(tasks) + chunks)
    with bar("relating tasks", work, "context", plan.hide, position=0) as shown:
        for place, (path, record) in enumerate(chosen):
            kept = load(str(path)) if place else kept
            now, found = of_vectors(kept.method)
            start = start_of(kept) if found else None
            if start is not None:
                before, at_start = of_vectors(start)
                found["contexts change"] = found["contexts"] - at_start["contexts"]
                if before is not None and now is not None:
                    spectra.setdefault("start", []).append(before)
            if now is not None:
                spectra.setdefault("learned", []).append(now)
            images, labels = _few_shot(plan, tasks, record)
            method = cast(PromptMethod, kept.method)
            if "kernel" in found:
                found["gradients"] = gradients(method, images, labels)
                found[BOTH] = found["kernel"] * found["gradients"]
            if method.image == "pooled" and not method.separate:
                found["affinity"] = affinity(method, images, labels)
            accuracies = swapped(kept.method, tests, device, shown.update)
            recorded = {row["task"]: row["accuracy"] for row in record.tasks}
            off = max([off, *(abs(accuracies[t, t] - recorded[name]) for t, name in enumerate(tasks))])
            found |= {
                SWAP: accuracies - plain,
                "text": text(plan.backbone, kept.tasks),
                "functional": functional(method, shown.update),
                "visual": visual(images),
                "class names": overlap(kept.tasks),
            }
            for name, matrix in found.items():
                seeds.setdefault(name, []).append(matrix)
    if len(seeds.get("contexts change", [])) < len(chosen):  # not of every seed
        spectra.pop("start", None), seeds.pop("contexts change", None)
    held = _trainings(first, there, plan, kept.method)
    for name, of in ((PAIRS, gains.pairs), (LEFT_OUT, gains.left_out)):
        seeds[name] = [of(own, tasks) for own in held.values()]
    means = {name: gains.mean(several) for name, several in seeds.items() if not np.isnan(several).all()}
    frames = {
        name: pd.DataFrame(means[name], pd.Index(tasks, name="task"), tasks)
        for name in (SWAP, *SIMILARITIES, PAIRS, LEFT_OUT)
        if name in means
    }
    if spectra:
        frames["spectrum"] = pd.DataFrame({when: _spectrum(several) for when, several in spectra.items()})
        frames["spectrum"].insert(0, "of K", ["effective rank", *(f"share {k}" for k in range(1, len(tasks) + 1))])
    if len(more := gains.alone(held, tasks)):
        frames["gains"] = more
    frames["association"] = associated({name: seeds[name] for name in means})
    notes = _notes(frames, len(tasks), len(chosen), off)
    notes += gains.notes(held, tasks, {name: seeds[name] for name in (PAIRS, LEFT_OUT) if name in means})
    frames["association"].attrs["notes"] = notes
    said = ", ".join(str(record.cell["seed"]) for _, record in chosen)
    return Relations(f"{described(first)}, seed{'s' * (len(chosen) > 1)} {said}", plan.suite.demo, frames, notes)


def associated(seeds: Mapping[str, Sequence[Matrix]]) -> pd.DataFrame:
    """Which similarity goes with which gain: one row for each two of them, with Spearman's ρ over pairs of tasks,
    Mantel's p and what noise between seeds leaves of |ρ| at most.

    seeds : the matrices of each seed, by name.
    """
    means = {name: gains.mean(several) for name, several in seeds.items()}
    whole = {name: [one for one in several if _is_whole(one)] for name, several in seeds.items()}
    again = {name: association.reliability(several) for name, several in whole.items()}
    rows = []
    for gain in (SWAP, PAIRS, LEFT_OUT):
        if gain not in means or not _is_whole(means[gain]):
            continue
        for name in (name for name in SIMILARITIES if name in means):
            rho, p = association.mantel(means[name], means[gain].round(9))  # what rounding alone tells apart is a tie
            least, most = association.least_p(len(means[gain])), association.ceiling(again[name], again[gain])
            rows.append({"gain": gain, "similarity": name, "rho": rho, "p": p, "least p": least, "ceiling": most,
                         "seeds": len(whole[gain])})  # fmt: skip
    return pd.DataFrame(rows)


def _is_whole(matrix: Matrix) -> bool:
    """Whether every pair of tasks has a value; gains have none on the diagonal."""
    return not np.isnan(association.pairs(matrix)).any()


def _spectrum(seeds: Sequence[Matrix]) -> list[float]:
    """Effective rank and shares, means over seeds."""
    rank = np.mean([association.effective_rank(shares) for shares in seeds])
    return [float(rank), *map(float, np.mean(seeds, axis=0))]


def _tests(plan: Plan, tasks: Sequence[str], kind: str) -> list[TaskTest]:
    by_name = {task.name: task for task in plan.tasks}
    own = [by_name[name] for name in tasks]
    labels = [torch.tensor([item.label for item in task.split.test], dtype=torch.long) for task in own]
    blocks = scored_features(plan, own, kind)
    return [TaskTest(b, y, task.metric) for b, y, task in zip(blocks, labels, own, strict=True)]


def _few_shot(plan: Plan, tasks: Sequence[str], record: Record) -> tuple[list[Tensor], list[Tensor]]:
    """[n, d] and labels [n] of each task: the cell's few-shot images in their test view."""
    train = plan.images.draws[record.cell["shots"], record.cell["seed"]].train
    images = [torch.cat([plan.features.get(part, View())[0] for part in train[name]]) for name in tasks]
    return images, [torch.tensor([item.label for part in train[name] for item in part.items]) for name in tasks]


def _trainings(like: Record, there: Sequence[Record], plan: Plan, method: Method) -> dict[int, gains.Accuracies]:
    """Of cells that differ from one in the tasks that were trained together: accuracies by seed and tasks."""
    setting = partial(setting_of, tasks=False, joint=False)
    alike = [record for record in there if setting(record, code=False) == setting(like, code=False)]
    same = [record for record in alike if setting(record) == setting(like) and fits(record, plan)]
    used = {record.key for record in same}
    fewer = [record for record in alike if record.key not in used and {*record.tested} < {*like.tested}]
    if fewer:
        warnings.warn(f"gains: {count(len(fewer), 'cell')} of other seeds, images or code left out", stacklevel=3)

    def separate(record: Record) -> bool:
        made: Any = type(method)(restored(type(method), record.config["params"], record.key))
        return bool(made.separate)

    return gains.accuracies(same, separate)


def _notes(frames: Mapping[str, pd.DataFrame], n: int, n_seeds: int, off: float) -> list[str]:
    """What must be known to read the tables, in sentences."""
    notes, found = [], frames["association"]
    least = association.least_p(n)
    if n == 2:
        notes.append("Two tasks are one pair: nothing can be correlated.")
    elif least > SIGNIFICANT:
        notes.append(f"With {n} tasks nothing can be significant: the least possible p is {least:.3f}.")
    elif len(found):
        notes.append(f"The {count(int(found['p'].notna().sum()), 'p value')} are not adjusted for their number.")
    if len(same := [*dict.fromkeys(found.loc[found["rho"].isna(), "similarity"])] if n > 2 and len(found) else []):
        notes.append(f"No correlation of {', '.join(same)}: the same for every pair of tasks.")
    if n_seeds == 1:
        notes.append("One seed: nothing is known of noise, so there is no ceiling.")
    if "contexts" in frames and "contexts change" not in frames:
        notes.append("Start values are left out: the code that makes them has changed since the cells were trained.")
    if "gains" in frames:
        lost = int((frames["gains"]["gain"] < 0).sum())
        n_gains = count(len(frames["gains"]), "task")
        notes.append(f"Negative transfer: joint training costs {lost} of {n_gains} accuracy.")
    if off > 1e-6:
        notes.append(
            f"Accuracies differ by up to {off:.2g} points from the cells' records: made by other code, libraries or "
            "hardware."
        )
    return notes
