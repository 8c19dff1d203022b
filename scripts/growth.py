"""How a training step grows with the number of tasks: python scripts/growth.py [--methods shared-coop,softcpt] [--help]

Simulated tasks of 10 to 30 classes with made-up names, one random image feature per class, batches of 32 images over
all tasks. Only tasks with an image in the batch are encoded, so a step is bounded by the batch, not by the tasks;
with `tasks_a_step` (--tasks-a-step) by that number. Each measurement runs in a process of its own, whose peak memory is
its own. Writes growth.json, .png and .svg. Time and memory only: no accuracy follows from made-up features.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NUMBERS = (10, 44, 100, 300, 1000, 3000)
TOWERS = {  # width of the joint embedding, text tower
    "lite": (256, {"width": 192, "heads": 3, "layers": 4}),
    "rn50": (1024, {"width": 512, "heads": 8, "layers": 12}),
}
WORDS = ("red", "golden", "wild", "small", "river", "garden", "cat", "tulip", "maple", "church", "fern", "wagon")
STEPS = 30


def measure(tower: str, method_name: str, n_tasks: int, tasks_a_step: int) -> dict[str, Any]:
    """Step time and memory of a method with so many tasks, in this process. tasks_a_step : 0 for no limit."""
    import torch
    from open_clip import CLIP
    from open_clip.tokenizer import SimpleTokenizer

    from bench.clip.text import TextTower
    from bench.methods import TaskData, find_method
    from bench.methods.prompt import PromptMethod

    torch.set_num_threads(1)
    torch.manual_seed(0)
    embed, text = TOWERS[tower]
    model = CLIP(embed, {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}, text).eval().requires_grad_(False)
    clip: Any = SimpleNamespace(
        tower=TextTower(model, SimpleTokenizer()), scale=50.0, embed_dim=embed, device=torch.device("cpu")
    )
    rng = random.Random(0)  # noqa: S311 - a seeded draw, no secret
    base = _resident()
    tasks = []
    for t in range(n_tasks):
        n = rng.randint(10, 30)
        names = tuple(f"{' '.join(rng.choices(WORDS, k=rng.randint(1, 3)))} {t} {c}" for c in range(n))
        labels = torch.arange(len(names))
        views = torch.randn(1, len(names), embed)
        where = (f"field {t % 10}",)  # for methods that read a tree of tasks
        tasks.append(TaskData(f"task {t}", f"recognition of {t}", names, "a {}.", views, labels, path=where))
    kind = find_method(method_name)
    if not issubclass(kind, PromptMethod) or kind().separate:
        raise SystemExit(f"{method_name} does not learn prompts on all tasks together")
    method = kind(kind.Params(tasks_a_step=tasks_a_step))
    method.setup(clip, tasks, seed=1)
    optimiser = torch.optim.SGD(method.learned.values(), lr=0.002, momentum=0.9)
    seconds, present = [], []
    start = time.perf_counter()
    for _, batch in method.training(range(n_tasks), seed=0).steps:
        optimiser.zero_grad()
        method.gradients([(method, batch)])
        optimiser.step()
        seconds.append(time.perf_counter() - start)
        present.append(len(batch.present))
        if len(seconds) == STEPS:
            break
        start = time.perf_counter()
    return {
        "method": method_name,
        "tasks_a_step": tasks_a_step,
        "tasks": n_tasks,
        "classes": sum(len(task.class_names) for task in tasks),
        "tasks_in_a_batch": statistics.mean(present),
        "seconds_a_step": statistics.median(seconds[3:] or seconds),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "memory_before_tasks_mb": base,
        "learned_numbers": method.n_params,
    }


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def draw(results: list[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    lines: dict[str, list[dict[str, Any]]] = {}
    for r in results:
        label = f"{r['method']}, {r['tasks_a_step']} tasks a step" if r["tasks_a_step"] else r["method"]
        lines.setdefault(label, []).append(r)
    for (label, own), marker in zip(lines.items(), itertools.cycle("osD^v<>PX*hp")):  # more lines than colours
        look = f"{marker}--" if own[0]["tasks_a_step"] else f"{marker}-"
        left.plot([r["tasks"] for r in own], [1000 * r["seconds_a_step"] for r in own], look, label=label)
        right.plot([r["tasks"] for r in own], [r["peak_memory_mb"] for r in own], look, label=label)
    left.set(xscale="log", yscale="log", xlabel="tasks", ylabel="milliseconds a step")
    right.set(xscale="log", xlabel="tasks", ylabel="peak memory, MB", ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    for kind in ("png", "svg"):
        figure.savefig(out / f"growth.{kind}", dpi=140)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--methods", default="shared-coop,softcpt", help="that learn prompts (default: %(default)s)")
    p.add_argument("--tower", choices=tuple(TOWERS), default="lite", help="text tower's size (default: %(default)s)")
    p.add_argument("--tasks", default=",".join(map(str, NUMBERS)), help="default: %(default)s")
    p.add_argument("--tasks-a-step", default="0,4", help="0: no limit (default: %(default)s)")
    p.add_argument("--out", default="results/benchmarks", help="folder of what is written (default: %(default)s)")
    p.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one:
        print(json.dumps(measure(a.tower, a.methods, int(a.tasks), int(a.tasks_a_step))))
        return
    results = []
    for method, limit, n in itertools.product(a.methods.split(","), a.tasks_a_step.split(","), a.tasks.split(",")):
        asked = ["--methods", method, "--tasks-a-step", limit, "--tasks", n, "--tower", a.tower, "--one"]
        command = [sys.executable, __file__, *asked]
        results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))  # noqa: S603 - a list of our own words, and no shell
        print(results[-1], flush=True)
    from bench.records import processor, versions

    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    about = {"tower": a.tower, "threads": 1, "processor": processor()}
    written = {"name": "growth", "date": date.today().isoformat(), **about, "versions": versions(), "results": results}
    (out / "growth.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    draw(results, out)


if __name__ == "__main__":
    main()
