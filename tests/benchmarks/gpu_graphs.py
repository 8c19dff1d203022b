"""What recording a text step as a CUDA graph would bring: python tests/benchmarks/gpu_graphs.py --out graphs.json

RN50's text tower with random weights, every task of General-10 or Fashion-20 in the batch: features and gradients of
one context per task, called as the bench calls them, and replayed from a recorded graph. The bench records no graphs:
the set of tasks in a batch, and so every shape, changes from step to step. This says what that costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
import reference
import sizes
from gpu import FASHION20

from bench.clip.text import Prompts, TextTower
from bench.records import versions


def milliseconds(call: Callable[[], Any], n: int = 20) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(n):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / n * 1000


def measure(tower: TextTower, classes: list[int]) -> dict[str, Any]:
    contexts = [(0.02 * torch.randn(1, 16, tower.width, device="cuda")).requires_grad_(True) for _ in classes]
    prompts = [Prompts(c, sizes.names(n)) for c, n in zip(contexts, classes, strict=True)]

    def step() -> tuple[Tensor, ...]:
        loss = torch.stack([f.square().sum() for f in tower.encode(prompts)]).sum()
        return torch.autograd.grad(loss, contexts)

    called, plain = milliseconds(step), step()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm up where the recording will happen, as torch's guide asks
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    replayed = milliseconds(graph.replay)
    apart = max(((a - b).norm() / b.norm()).item() for a, b in zip(recorded, plain, strict=True))
    return {"called_ms": called, "replayed_ms": replayed, "gradients_apart": apart}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="graphs.json", help="the JSON to write (default: %(default)s)")
    a = p.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device is at hand")
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32
    few = torch.zeros(8, device="cuda")
    launch = milliseconds(lambda: [few.add_(1) for _ in range(1000)], 5)  # of a thousand: microseconds each
    results = []
    for precision in ("bfloat16", "float32"):
        text = open_clip.get_model_config("RN50")["text_cfg"]
        model = reference.random_clip(1024, text).to(device="cuda", dtype=getattr(torch, precision))
        tower = TextTower(model, reference.clip_tokenizer())
        for suite, classes in (("general10", sizes.general10()), ("fashion20", FASHION20)):
            results.append({"precision": precision, "suite": suite, **measure(tower, classes)})
            print(json.dumps(results[-1]), flush=True)
    written = {
        "what": __doc__.splitlines()[0],
        "card": torch.cuda.get_device_name(),
        "date": date.today().isoformat(),
        "versions": versions(),
        "microseconds_a_small_operation": launch,
        "results": results,
    }
    Path(a.out).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
