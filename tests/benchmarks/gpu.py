"""Training at General-10's real size on a GPU, in one call: python tests/benchmarks/gpu.py --out gpu.json

RN50's text tower with random weights, random image features, General-10's class counts, 16 shots, batch 32, 50
epochs: the sizes are real, the numbers learned are nothing. Each part trains through the methods' own `fit` until it
ends or its seconds are spent; what is then left is added at the pace of the steps seen (of side-by-side methods the
first steps are the dearest, so that is too much rather than too little) and said in `complete`. At Fashion-20's sizes,
where a step is small, SoftCPT is trained with one seed and with three side by side. `--small` is a trial of the script
itself on any machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
import reference
import sizes

from bench.clip.text import TextTower
from bench.methods import TaskData, find_method
from bench.records import versions

SHOTS, WARM_UP = 16, 20
FASHION20 = [4] * 18 + [3] * 2  # 78 classes of 20 tasks; how many each has stands in its authors' copy alone
COCOOP_TOKENS = 100_000  # encoded at a time; in float32 a token keeps half a megabyte for its gradients
TARGETS = {"softcpt": 180, "coop": 180, "cocoop": 900}  # seconds on an H200-class card


class Spent(Exception):
    """The part's seconds are over."""


def measure(name: str, clip: Any, data: list[TaskData], seconds: float, n_seeds: int = 1) -> dict[str, Any]:
    """Train a method for at most so long, some seeds side by side; the time a whole training takes."""
    found = find_method(name)
    params = found.Params(max_tokens=COCOOP_TOKENS) if name == "cocoop" else found.Params()
    fits = [(found(params), data, seed) for seed in range(1, n_seeds + 1)]
    clock: dict[str, float] = {}
    state = {"done": 0, "total": 0, "synchronised": 0}
    cuda = clip.device.type == "cuda"

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    def report(done: int, total: int) -> None:
        state.update(done=done, total=total)
        if done == WARM_UP:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
            wait()
            clock["start"] = time.perf_counter()
            if cuda:
                torch.cuda.set_sync_debug_mode("warn")
        elif done == 2 * WARM_UP and cuda:
            torch.cuda.set_sync_debug_mode("default")
        if done > 2 * WARM_UP and done % 50 == 0 and time.perf_counter() - clock["start"] > seconds:
            raise Spent

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found.fit_together(fits, clip, report)
            complete = True
        except Spent:
            complete = False
        except torch.cuda.OutOfMemoryError as error:  # the other parts are measured all the same
            return {"method": name, "seeds": n_seeds, "error": str(error).splitlines()[0]}
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
        wait()
    elapsed = time.perf_counter() - clock["start"]
    syncs = sum("synchroniz" in str(w.message) for w in caught)
    step = elapsed / (state["done"] - WARM_UP)
    return {
        "method": name,
        "classes": sum(len(task.class_names) for task in data),
        "seeds": n_seeds,
        "steps_measured": state["done"] - WARM_UP,
        "steps_of_a_training": state["total"],
        "complete": complete,
        "milliseconds_a_step": 1000 * step,
        "seconds_a_training": step * state["total"],
        "synchronisations_in_20_steps": syncs if cuda else None,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="gpu.json", help="the JSON to write (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=60, help="for each method and precision (default: %(default)s)")
    p.add_argument("--small", action="store_true", help="a tiny tower and three small tasks: does the script run?")
    a = p.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not a.small:
        sys.exit("no CUDA device is there; --small tries the script on the CPU")
    classes = sizes.general10()
    text, embed = open_clip.get_model_config("RN50")["text_cfg"], 1024
    if a.small:
        classes, text, embed = [3, 5, 4], {"width": 32, "heads": 2, "layers": 2}, 24
    data = sizes.tasks(classes, embed, SHOTS)
    few = sizes.tasks(FASHION20 if not a.small else [2, 3], embed, SHOTS)
    work = [(name, data, 1, a.seconds) for name in TARGETS]
    work += [("softcpt", few, n_seeds, a.seconds / 3) for n_seeds in (1, 3)]
    results = []
    what = "a trial, no measurement" if a.small else "random weights and features at General-10's sizes"
    for precision in ("bfloat16", "float32"):
        model = reference.random_clip(embed, text).to(device=device, dtype=getattr(torch, precision))
        tower = TextTower(model, reference.clip_tokenizer())
        clip = SimpleNamespace(tower=tower, scale=float(model.logit_scale.exp()), embed_dim=embed, device=device)
        torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32
        for name, tasks, n_seeds, most in work:
            results.append({"precision": precision, **measure(name, clip, tasks, most, n_seeds)})
            print(json.dumps(results[-1]), flush=True)
            written = {
                "what": what,
                "card": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                "date": date.today().isoformat(),
                "versions": versions(),
                "classes": classes,
                "shots": SHOTS,
                "target_seconds": TARGETS,
                "results": results,
            }
            Path(a.out).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
