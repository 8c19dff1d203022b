"""What a finished cell has learned: kept beside its record, read as words, used on new images."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.checkpoints import content_hash
from bench.clip.backbone import Backbone, Precision, load_backbone, noted, packaged_names, what_to_give
from bench.datasets.types import image_files
from bench.devices import find_device
from bench.errors import UserError, nearest
from bench.features import ImageFeatures, View
from bench.features.hashes import named
from bench.files import from_json, user_path, write_whole
from bench.methods import Method, TaskData, find_method, method_names
from bench.methods.base import check_scores
from bench.methods.prompt import PromptMethod
from bench.options import restored
from bench.packs import record_files
from bench.progress import bar, count
from bench.records import KEY_SHOWN, Record, read_record

SHOWN = 5  # keys in an error

# Of a task, all that a trained method needs of it.
NAMES = ("name", "task_name", "template", "class_names", "descriptions", "path")


def keep_state(path: Path, method: Method, tasks: Sequence[TaskData], config: dict[str, Any]) -> bool:
    """Write a method's state and all that is needed to use it; False where the method keeps none.

    Parameters
    ----------
    path : a .safetensors file. tasks : in the order of `fit`. config : the cell's.
    """
    state = method.state()
    if state is None:
        return False
    from safetensors.torch import save_file

    named = [{field: getattr(task, field) for field in NAMES} for task in tasks]
    metadata = {"cell": json.dumps(config, ensure_ascii=False), "tasks": json.dumps(named, ensure_ascii=False)}
    tensors = {name: value.contiguous() for name, value in state.items()}
    metadata["checksum"] = content_hash([metadata["cell"], metadata["tasks"]], tensors)
    write_whole(path, lambda part: save_file(tensors, str(part), metadata=metadata))
    return True


def _check_whole(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a state that is not what was written. Files of older versions have no checksum."""
    if other := metadata.keys() - {"cell", "tasks", "checksum"}:  # "checksum" itself may be what was damaged
        raise ValueError(f"unknown metadata {', '.join(map(repr, sorted(other)))}")
    if "checksum" in metadata and metadata["checksum"] != content_hash([metadata["cell"], metadata["tasks"]], tensors):
        raise ValueError("damaged: its checksum does not fit; run the cell again")


def _keys(results: str | Path, suffix: str) -> str:
    """Some of the cells below a folder that have kept a file of this kind, with their keys."""
    found = sorted(user_path(results).rglob(f"*-seed*-*{suffix}"), key=lambda file: file.stat().st_mtime)
    if not found:
        return "nothing of the kind is there: is it the folder that `run --results` named?"
    some = []
    for path in reversed(found[-SHOWN:]):
        name, _, key = path.name.removesuffix(suffix).rpartition("-")
        some.append(f"{key[:KEY_SHOWN]} ({path.parent.name} {name})")
    return f"{'the last of ' * (len(found) > SHOWN)}{count(len(found), 'key')} there: {', '.join(some)}"


@dataclass(frozen=True)
class Kept:
    """A method as it was after its training, and what it was trained on.

    tasks : names only. config : the cell's configuration, as in its record.
    """

    method: Method
    backbone: Backbone
    tasks: list[TaskData]
    config: dict[str, Any]


def find_cell(cell: str, results: str | Path, suffix: str = ".safetensors", what: str = "learned parameters") -> Path:
    """The file beside a cell's record that `cell` stands for: a path, a record's path, or a key's beginning.

    suffix, what : which file, and what it holds.

    Raises
    ------
    UserError : none or several fit, or the file was not kept.
    """
    path = user_path(cell)
    if path.suffix == ".json" or path.name.endswith(suffix):
        beside = path.with_suffix(suffix) if path.suffix == ".json" else path
        if not path.is_file() and not beside.is_file():
            raise UserError(f"--cell {cell}: no such file")
        found = [beside]
    else:
        _check_key(cell)
        found = sorted(user_path(results).rglob(f"*-seed*-{cell}*{suffix}"))
    if not found:
        there = _keys(results, suffix)
        if records := _records(cell, results):
            (path, _), said = records[0], f"no {what} were kept of the cell"
            raise UserError(f"--cell {cell}: {said} ({path.stem}; nothing of the kind is beside its record); {there}")
        raise UserError(f"--cell {cell}: no {what} below {results} have a key that begins with it; {there}")
    _check_single(cell, found)
    if not found[0].is_file():
        raise UserError(f"--cell {cell}: its {what} were not kept ({found[0].name} is not beside it)")
    return found[0]


def find_record(cell: str, results: str | Path) -> Record:
    """The record that `cell` stands for, in a file of its own or in a pack: its path, or its key's beginning.

    Raises
    ------
    UserError : none or several fit, or it is damaged.
    """
    path = user_path(cell)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(f"--cell {cell}: no such file")
        found: list[tuple[Path, bytes | None]] = [(path, None)]
    else:
        _check_key(cell)
        found = _records(cell, results)
    if not found:
        raise UserError(f"--cell {cell}: no records below {results} have a key that begins with it")
    _check_single(cell, [path for path, _ in found])
    path, text = found[0]
    try:
        return read_record(path) if text is None else Record.from_json(from_json(text))
    except (OSError, ValueError) as error:
        raise UserError(f"--cell {cell}: {path} is not a readable record ({error})") from error


def _records(cell: str, results: str | Path) -> list[tuple[Path, bytes | None]]:
    """Those whose key begins so; of a cell that is in a pack and in a file of its own, the file."""
    found: dict[str, tuple[Path, bytes | None]] = {}
    for path, text in record_files(user_path(results), f"*-seed*-{cell}*.json"):
        if path.name not in found or text is None:
            found[path.name] = path, text
    return list(found.values())


def _check_key(cell: str) -> None:
    if not cell.strip() or not cell.isalnum():
        raise UserError(f"--cell {cell!r}: a record's path, or the beginning of its key (in records.csv and its name)")


def _check_single(cell: str, found: Sequence[Path]) -> None:
    if len(found) > 1:
        two = f"{found[0].stem} and {found[1].stem} among them"
        raise UserError(f"--cell {cell}: {len(found)} keys begin with it, {two}")


def load_cell(
    cell: str,
    results: str | Path = "runs",
    backbone: str | None = None,
    pretrained: str | None = None,
    method: str | None = None,
    device: str = "cpu",
    loaded: Backbone | None = None,
) -> Kept:
    """Load what a cell has learned.

    Parameters
    ----------
    cell, results : see `find_cell`.
    backbone, pretrained : as in the run; needed where they were files that have moved since this machine last loaded
        them, or that it has not loaded: a cell does not record paths.
    method : package.module:Class, needed where it is not the bench's own: a file never says what code is run.
    loaded : a backbone that is taken where it is the cell's.

    Raises
    ------
    UserError : no such cell, a damaged file, or a backbone with other weights than the cell's.
    """
    path = find_cell(cell, results)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        _check_whole(metadata, state)
        config = from_json(metadata["cell"])
        # Files of older versions hold no descriptions, and no paths.
        tasks = [_task(**{"descriptions": {}, "path": [], **task}) for task in from_json(metadata["tasks"])]
        wanted, weights, params = config["method"], config["weights"], dict(config["params"])
        named, tag = config["backbone"], config["pretrained"]
        by_task = {str(t): dict(own) for t, own in config.get("params_by_task", {}).items()}
        foreign, precision = ":" in config.get("code", ""), config.get("precision", "float32")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what a run keeps of a cell ({type(error).__name__}: {error})") from error
    if foreign and not method:
        raise UserError(f"{path}: {wanted!r} is not the bench's own method; name its class with --method module:Class")
    if not foreign and wanted not in method_names():  # never "module:Class": a file does not say what code is run
        raise UserError(f"{path}: {wanted!r} is not one of the bench's methods")
    found = find_method(method if foreign and method else wanted, "--method")
    if loaded is None or loaded.weights != weights:
        loaded = _backbone_of(str(named), str(tag), str(weights), (backbone, pretrained), device, precision)
    made = found(restored(found, params, str(path)))
    made.by_task = {t: restored(found, {**params, **own}, str(path)) for t, own in by_task.items()}
    try:
        made.restore(loaded, tasks, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return Kept(made, loaded, tasks, config)


def source_of(name: str, tag: str, weights: str, given: tuple[str | None, str | None]) -> tuple[str, str | None]:
    """A cell's backbone as `load_backbone` takes it: as given, by its name and tag, or where its files were last seen.

    name, tag, weights : as in the cell's record. given : what the user says of it.

    Raises
    ------
    UserError : it was loaded from files, and nobody knows where they are.
    """
    options = what_to_give(name, tag)
    backbone, pretrained = given
    if backbone or pretrained:
        return backbone or name, pretrained or None
    if not options:
        return name, None if name in packaged_names() else tag or None
    source = noted(weights)
    if source is None:
        raise UserError(f"the cell's backbone, {name!r} with {tag!r}, was loaded from files; {options}")
    return source


def _backbone_of(
    name: str, tag: str, weights: str, given: tuple[str | None, str | None], device: str, precision: Precision
) -> Backbone:
    """A cell's backbone, from where `source_of` says."""
    source = source_of(name, tag, weights, given)
    options = what_to_give(name, tag)
    hint = f"; {options}" if options else ""
    try:
        loaded = load_backbone(*source, find_device(device), precision)
    except UserError as error:
        raise UserError(f"{error}; the cell's backbone is {name!r} with {tag!r}{hint}") from error
    if loaded.weights != weights:
        raise UserError(
            f"--backbone {source[0]}: its weights ({loaded.weights[:8]}…) are not those the cell was trained on "
            f"({name!r} with {tag!r}, {weights[:8]}…){hint}"
        )
    return loaded


def _task(
    name: str,
    task_name: str,
    template: str | list[str],
    class_names: list[str],
    descriptions: dict[str, list[str]],
    path: list[str],
) -> TaskData:
    written = str(template) if isinstance(template, str) else tuple(map(str, template))
    return TaskData(
        str(name),
        str(task_name),
        tuple(map(str, class_names)),
        written,
        torch.zeros(1, 0, 0),
        torch.zeros(0, dtype=torch.long),
        descriptions={str(c): tuple(map(str, sentences)) for c, sentences in descriptions.items()},
        path=tuple(map(str, path)),
    )


def _check_loaded(kept: Kept) -> None:
    if not isinstance(kept, Kept):
        raise UserError(f"{kept!r} is not a loaded cell; give bench.load_cell({str(kept)!r})")


# ---- words ---------------------------------------------------------------------------------------------------


def words(kept: Kept, task: str | None = None, top: int = 3) -> pd.DataFrame:
    """Nearest vocabulary words of the learned context vectors, by Euclidean distance (as CoOp's authors read them).

    Returns
    -------
    DataFrame : one row per vector with its context ("<task>", "<task>: <class>", or "task context"), place, and
        `top` words with their distances.
    """
    _check_loaded(kept)
    if not isinstance(kept.method, PromptMethod):
        raise UserError(f"{kept.method.name} learns no context vectors: there are no words to show")
    chosen = _chosen(kept, task)
    table = kept.backbone.tower.token_embedding.weight.float()  # V, w
    decoder = kept.backbone.tower.tokenizer.decoder
    rows = []
    with torch.no_grad():
        for label, context in _contexts(kept.method, [kept.tasks[t] for t in chosen], chosen):
            distances, ids = torch.cdist(context.float(), table).topk(min(top, len(table)), largest=False)  # L, k
            for place, (row, near) in enumerate(zip(ids.tolist(), distances.tolist(), strict=True), start=1):
                found = [f"{_word(decoder[i])} ({d:.2f})" for i, d in zip(row, near, strict=True)]
                rows.append({"context": label, "vector": place, "norm": context[place - 1].norm().item()}
                            | {f"word {k}": word for k, word in enumerate(found, start=1)})
    return pd.DataFrame(rows)


def _word(token: str) -> str:
    """A token of CLIP's vocabulary as it is read: "</w>" says that a word ends there."""
    return token.removesuffix("</w>") if token.endswith("</w>") else f"{token}-"


def _contexts(method: PromptMethod, tasks: Sequence[TaskData], chosen: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """Every context with what it stands for: those before class names, then those that names are read with."""
    shared = False
    for task, t in zip(tasks, chosen, strict=True):
        (contexts,) = method.contexts([t], [task.class_names])
        if id(method.learned.get("context")) == id(contexts):  # one for all tasks: shown once
            if not shared:
                yield "all tasks", contexts[0]
            shared = True
            continue
        for i, context in enumerate(contexts):
            label = f"{task.name}: {task.class_names[i]}" if method.paired else task.name
            yield (f"{label} #{i + 1}" if len(contexts) > 1 and not method.paired else label), context
    for name in ("task_context", "class_context"):
        for i, context in enumerate(method.learned.get(name, [])):
            several = len(method.learned[name]) > 1
            yield name.replace("_", " ") + (f" {i + 1}" if several else ""), context


# ---- new images ----------------------------------------------------------------------------------------------


def predict(kept: Kept, images: Sequence[str | Path], task: str | None = None, top: int = 3) -> pd.DataFrame:
    """The likeliest classes of image files among a task's.

    Parameters
    ----------
    images : files, or folders, which stand for the images in and below them.
    task : whose classes; needed where the cell has several tasks. top : how many classes per image.

    Returns
    -------
    DataFrame : one row per image and rank: image, rank, class, percent (softmax of the method's scores). Images that
        cannot be read are left out with a warning, and stand in `.attrs["broken"]` with the reason.

    Raises
    ------
    UserError : none of the images can be read.
    """
    _check_loaded(kept)
    if len(kept.tasks) > 1 and task is None:
        raise UserError(f"--task: the cell has several; name one of {', '.join(t.name for t in kept.tasks)}")
    (t,) = _chosen(kept, task)
    given = image_files(images)
    encoder = ImageFeatures(kept.backbone)
    with bar("reading images", len(given), "image", None, position=0) as shown:
        broken = encoder.hashes.faults(given, shown.update, decode=True)
    paths = [path for path in given if path not in broken]
    if broken:
        said = f"{count(len(broken), 'image')} cannot be read: {named(list(broken.values()))}"
        if not paths:
            raise UserError(said)
        warnings.warn(f"left out, {said}", stacklevel=2)
    blocks = encoder.missing([(paths, View())], kept.method.image)
    with bar("encoding", sum(map(len, blocks)), "image", None, position=0) as shown:
        encoder.make(blocks, kept.method.image, shown.update)
    features = encoder.get(paths, View(), kept.method.image)[0]
    with torch.no_grad():
        scores = kept.method.predict(kept.tasks[t], features.to(kept.backbone.device))
    check_scores(scores, kept.method.name, kept.tasks[t].name, len(paths), len(kept.tasks[t].class_names))
    shares = scores.float().softmax(dim=-1).cpu()
    best, classes = shares.topk(min(top, shares.shape[1]), dim=-1)
    names = kept.tasks[t].class_names
    rows = [
        {"image": str(path), "rank": k + 1, "class": names[c], "percent": 100 * p}
        for path, ps, cs in zip(paths, best.tolist(), classes.tolist(), strict=True)
        for k, (p, c) in enumerate(zip(ps, cs, strict=True))
    ]
    table = pd.DataFrame(rows)
    table.attrs["broken"] = {str(path): reason for path, reason in broken.items()}
    return table


def _chosen(kept: Kept, task: str | None) -> list[int]:
    names = {t.name.lower(): i for i, t in enumerate(kept.tasks)}
    if task is None:
        return list(names.values())
    if task.lower() not in names:
        raise UserError(f"--task {task!r} is not in the cell; {nearest(task, [t.name for t in kept.tasks])}")
    return [names[task.lower()]]
