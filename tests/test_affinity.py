"""Task affinity: what one task's step takes off another's loss, by hand and beside a plain step."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bench
from bench.affinity import affinity
from bench.clip.text import Prompts
from bench.config import RunConfig
from bench.features import View
from bench.plan import prepare

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_step_by_hand() -> None:
    """Two classes. Task 0's logits are apart by x, so L_0 = ln(1 + e^-x), and its slope is -(1 - e^-L_0); task 1's by
    -x. η is such that task 0's step takes its loss from 0.8 to 0.6: a share of 0.25. The step for task 1 goes the
    other way by η (1 - e^-L_1)."""
    x = -math.log(math.exp(0.8) - 1)
    after = -math.log(math.exp(0.6) - 1)
    lr = (after - x) / (1 - math.exp(-0.8))
    other = math.log(1 + math.exp(x))
    back = x - lr * (1 - math.exp(-other))
    wanted = [
        [0.25, 1 - math.log(1 + math.exp(after)) / other],
        [1 - math.log(1 + math.exp(-back)) / 0.8, 1 - math.log(1 + math.exp(back)) / other],
    ]
    signs = [1.0, -1.0]
    method: Any = SimpleNamespace(
        tasks=[SimpleNamespace(class_names=["a", "b"])] * 2, learned={"x": torch.tensor(x), "unused": torch.zeros(1)},
        params=SimpleNamespace(lr=lr), clip=SimpleNamespace(device=torch.device("cpu")), scores=lambda f, text: text,
    )  # fmt: skip
    method.text_features = lambda t, names: [
        torch.stack([signs[t[0]] * method.learned["x"], torch.tensor(0.0)]).repeat(3, 1)
    ]
    learned = method.learned
    found = affinity(method, [torch.ones(3, 2)] * 2, [torch.zeros(3, dtype=torch.long)] * 2)
    assert found == pytest.approx(np.array(wanted), abs=1e-5)
    assert found[0, 1] < -0.1 and found[1, 0] < -0.1  # what helps one harms the other
    assert method.learned is learned and float(learned["x"]) == pytest.approx(x)


def test_a_loss_of_nothing_leaves_nothing_to_take_away() -> None:
    method: Any = SimpleNamespace(
        tasks=[SimpleNamespace(class_names=["a", "b"])], learned={"x": torch.tensor(1e4)},
        params=SimpleNamespace(lr=0.1), clip=SimpleNamespace(device=torch.device("cpu")), scores=lambda f, text: text,
    )  # fmt: skip
    method.text_features = lambda t, names: [torch.stack([method.learned["x"], torch.tensor(0.0)])[None]]
    assert affinity(method, [torch.ones(1, 2)], [torch.zeros(1, dtype=torch.long)]).tolist() == [[0.0]]


def test_affinity_is_what_a_plain_step_takes_off_each_loss(tiny: Any, tmp_path: Path) -> None:
    """SoftCPT from its formula: V_t = E(u, name) P; the task context u and P both take the step."""
    tiny.run(tmp_path, shots=[2], seeds=[1, 2], methods=["softcpt", "coop"], options=["softcpt.lr=0.02"])
    asked = {"results": str(tmp_path), "suite": tiny.suite, "data": str(tiny.data), "quiet": True}
    plan = prepare(RunConfig(**asked, backbone=tiny.backbone, shots=2, seeds=(1, 2), methods="zero-shot"))
    wanted = np.zeros((3, 3))
    for path in tmp_path.rglob("softcpt/2shot-*.safetensors"):
        kept: Any = bench.load_cell(str(path))
        sets = []
        for task in kept.tasks:
            parts = plan.images.draws[2, int(kept.config["seed"])].train[task.name]
            images = plan.features.get([p for part in parts for p in part.paths], View())[0]
            sets.append((F.normalize(images, dim=-1), torch.tensor([i.label for part in parts for i in part.items])))

        def loss(t: int, u: torch.Tensor, p: torch.Tensor, kept: Any = kept, sets: Any = sets) -> torch.Tensor:
            task, tower = kept.tasks[t], kept.backbone.tower
            f = tower.encode([Prompts(u, [task.task_name])])[0][0]
            context = (f @ p).reshape(1, kept.method.params.context, tower.width)
            text = F.normalize(tower.encode([Prompts(context, list(task.class_names))])[0][0], dim=-1)
            images, labels = sets[t]
            return F.cross_entropy(kept.backbone.scale * images @ text.T, labels)

        u, p = (kept.method.learned[name].detach() for name in ("task_context", "projection"))
        before = [float(loss(t, u, p)) for t in range(3)]
        for i in range(3):
            u_i, p_i = u.clone().requires_grad_(True), p.clone().requires_grad_(True)
            g_u, g_p = torch.autograd.grad(loss(i, u_i, p_i), [u_i, p_i])
            for j in range(3):
                wanted[i, j] += (1 - float(loss(j, u - 0.02 * g_u, p - 0.02 * g_p)) / before[j]) / 2
    found = bench.relate(**asked, method="softcpt")
    assert found["affinity"].to_numpy() == pytest.approx(wanted, abs=1e-4)
    assert np.abs(wanted).max() > 1e-2 and np.abs(wanted - wanted.T).max() > 1e-3
    assert "affinity" in set(found["association"]["similarity"])
    assert "affinity" not in bench.relate(**asked, method="coop")  # each task has learned alone: no other's loss moves
