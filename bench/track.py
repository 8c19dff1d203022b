"""`--track`: finished records in TensorBoard's, MLflow's or Weights & Biases' own form: one run for each record.

Everything is read from a record that is already written, and lies beside the results, never among them: a report reads
every *.json there. What is there already is never changed or deleted, because on a server it may be someone else's: a
cell that failed and finished at a second try has two runs, with their status.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.files import file_name

if TYPE_CHECKING:
    from bench.records import Record


@dataclass(frozen=True)
class Traced:
    """A record as trackers take it.

    name : method, variant, shots, seed and the key's beginning.
    about : the cell's names and parameters, its status, and its error or marks; numbers and texts.
    curves : (epoch, value)s by "loss/TRAINING" and "accuracy/TRAINING"; accuracy in percent.
    finals : percent, "score" (mean over tasks), "test/TASK" and "val/TASK"; of base2new with the part.
    """

    name: str
    done: bool
    about: dict[str, int | float | str]
    curves: dict[str, list[tuple[int, float]]]
    finals: dict[str, float]


def traced(record: Record) -> Traced:
    from bench.records import KEY_SHOWN  # here, because options are read before pandas is loaded

    cell = record.cell
    words = [cell["method"], cell.get("variant"), f"{cell['shots']}shot", f"seed{cell['seed']}", record.key[:KEY_SHOWN]]
    params = {f"params.{name}": value for name, value in record.config.get("params", {}).items()}
    about = {**cell, "key": record.key, **params, "status": record.status}
    if not record.done:
        about["error"] = record.reason or "no reason recorded"
    if record.marks:
        about["marks"] = "; ".join(record.marks)
    curves = {
        f"{what}/{_plain(training)}": list(zip(record.curves["epochs"], values, strict=True))
        for what in ("loss", "accuracy")
        for training, values in record.curves.get(what, {}).items()
    }
    finals = {} if record.score is None else {"score": record.score}
    for row in record.tasks:
        name = _plain(row["task"]) + ("" if row["part"] == "all" else f"/{row['part']}")
        for what, column in (("test", "accuracy"), ("val", "val_accuracy")):
            if row.get(column) is not None:
                finals[f"{what}/{name}"] = row[column]
    told = {_plain(k): v if isinstance(v, (int, float, str)) else json.dumps(v) for k, v in about.items()}
    return Traced(" ".join(str(w) for w in words if w), record.done, told, curves, finals)


def _plain(name: str) -> str:
    """A name that every tool allows in a metric's."""
    return re.sub(r"[^\w. -]", "_", name, flags=re.ASCII)


def tensorboard(folder: Path, cell: Traced, finished: datetime) -> None:
    """Event files in a folder of the run's name; an earlier try's stay, and this one's is "NAME (2)"."""
    from torch.utils.tensorboard import SummaryWriter

    name = file_name(cell.name)
    place = next(p for n in count(1) if not (p := folder / (name if n == 1 else f"{name} ({n})")).exists())
    with SummaryWriter(str(place)) as writer:
        for curve, points in cell.curves.items():
            for epoch, value in points:
                writer.add_scalar(curve, value, epoch)
        for said in ("status", "error", "marks"):
            if said in cell.about:
                writer.add_text(said, str(cell.about[said]))
        writer.add_hparams(cell.about, cell.finals, run_name=".")  # its scalars, too


def mlflow(folder: Path, cell: Traced, finished: datetime) -> None:
    """A run of the experiment "bench" in an SQLite file, or where $MLFLOW_TRACKING_URI says."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    server = os.environ.get("MLFLOW_TRACKING_URI")
    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(server or f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "bench")
    there = client.get_experiment_by_name(name)
    artifacts = None if server else (folder / "artifacts").as_uri()
    experiment = there.experiment_id if there else client.create_experiment(name, artifact_location=artifacts)
    said = [name for name in ("key", "error", "marks") if name in cell.about]
    run = client.create_run(experiment, run_name=cell.name).info.run_id
    client.log_batch(run, tags=[RunTag(name, str(cell.about[name])) for name in said])
    params = [Param(name, str(value)) for name, value in cell.about.items() if name not in said]
    for start in range(0, len(params), 100):  # as many as it takes at once
        client.log_batch(run, params=params[start : start + 100])
    when = int(finished.timestamp() * 1000)
    points = [(name, value, epoch) for name, curve in cell.curves.items() for epoch, value in curve]
    points += [(name, value, 0) for name, value in cell.finals.items()]
    for start in range(0, len(points), 1000):
        batch = [Metric(name, value, when, step) for name, value, step in points[start : start + 1000]]
        client.log_batch(run, metrics=batch)
    client.set_terminated(run, "FINISHED" if cell.done else "FAILED")


def wandb(folder: Path, cell: Traced, finished: datetime) -> None:
    """A run of the project "bench" (or $WANDB_PROJECT); offline unless $WANDB_MODE says otherwise. Its file is complete
    once this process, or `wandb.teardown()`, has ended wandb's own."""
    library = importlib.import_module("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    run = library.init(
        project=os.environ.get("WANDB_PROJECT", "bench"),
        name=cell.name,
        dir=str(folder),
        config=cell.about,
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=library.Settings(console="off", silent=True),
    )
    by_epoch: dict[int, dict[str, float]] = {}
    for name, points in cell.curves.items():
        for epoch, value in points:
            by_epoch.setdefault(epoch, {})[name] = value
    for epoch, values in sorted(by_epoch.items()):
        run.log(values, step=epoch)
    run.summary.update(cell.finals)
    run.finish(exit_code=0 if cell.done else 1)


TRACKERS: dict[str, Callable[[Path, Traced, datetime], None]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb": wandb,
}
NEEDED = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}


def check_tracker(name: str | None) -> None:
    """Raise UserError where a package that it needs is missing; loads nothing."""
    for package in NEEDED.get(name or "", ()):
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # a folder ./wandb, which wandb leaves, passes for a package of no code
            raise UserError(f"--track {name}: package {package} is missing; pip install 'prompt-bench[{name}]'")


def track(name: str, results: Path, record: Record) -> str | None:
    """Log a written record; what went wrong, in a line, or None. A tracker's failure is never the run's."""
    results = results.absolute().resolve()
    folder = results.with_name(f"{results.name}-{name}")
    try:
        TRACKERS[name](folder, traced(record), datetime.fromisoformat(record.finished))
    except Exception as error:
        said = (str(error) or type(error).__name__).partition("\n")[0]
        return f"warning: --track {name}: not logged, its record is kept: {said}"
    return None
