"""LP++: a linear probe with a learned weight of the text for each class, and step sizes from the data.

Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024, arXiv 2404.02285; code
github.com/FereshteShakeri/FewShot-CLIP-Strong-Baseline. Scores are W·f + b + α∘(t·f), without CLIP's τ, from one
random view of each image. W starts at the sums of the classes' features, α at 250 times the mean over classes of their
images' mean f·t, b at 0 (in their code at PyTorch's random start). 300 steps on all images: W and b by SGD with
momentum 0.9 and learning rate 4N/λ_max(FᵀF), α every tenth step by a plain gradient step of N/(4 · max_k Σᵢ(fᵢ·t_k)²).

Paper and code differ: in the code α's gradient is never set to zero, so that each of its steps takes the sum of all
gradients so far. The published numbers come from the code, so this is the default; `alpha_grad=last` takes the step's
own.

`search=val` keeps the iteration with the best accuracy on the few-shot validation images, of ties the last, as the
authors do on as many validation images as shots; otherwise the last iteration counts. W's start grows with a class's
number of images: classes with fewer start behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.methods.base import Choice, ProgressCallback, Searching, TaskData, param
from bench.methods.heads import Head, HeadMethod, choose
from bench.methods.log import Log
from bench.methods.training import Progress

EVERY = 10  # steps between two of α
START = 250.0  # of α, times the mean f·t of the classes' own images


class Blend(Head):
    """weights : W [C, d]. bias : b [C]. alpha : [C]. All learned."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.text: Tensor
        self.register_buffer("text", text, persistent=False)
        self.weights = nn.Parameter(torch.zeros_like(text))
        self.bias = nn.Parameter(torch.zeros(len(text), device=text.device))
        self.alpha = nn.Parameter(torch.zeros(len(text), device=text.device))

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.blended(images, images @ self.text.T)

    def blended(self, images: Tensor, similar: Tensor) -> Tensor:
        """From images [B, d] and their f·t [B, C], which a training computes once."""
        return images @ self.weights.T + self.bias + self.alpha * similar

    @torch.no_grad()
    def start(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Start values from the few-shot images [N, d]; the learning rates of W and b, and of α."""
        own = F.one_hot(labels, len(self.text)).to(images.dtype)  # N, C
        counts, similar = own.sum(dim=0), images @ self.text.T
        there = counts > 0
        self.weights.copy_(own.T @ images)
        self.bias.zero_()
        self.alpha.fill_(START * float(((own * similar).sum(dim=0)[there] / counts[there]).mean()))
        gram = images.T @ images if len(images) > images.shape[1] else images @ images.T  # equal largest eigenvalues
        n, largest = len(images), float(torch.linalg.eigvalsh(gram)[-1])
        return 4 * n / largest, n / (4 * float(similar.square().sum(dim=0).max()))


class LpPlusPlus(HeadMethod):
    """A linear probe with a learned weight of the text for each class, and step sizes from the data."""

    name = "lp++"
    own_views = 1
    order = 23
    no_new_classes = "it learns a weight vector for each class"
    source = "LP++, arXiv 2404.02285; github.com/FereshteShakeri/FewShot-CLIP-Strong-Baseline"
    footnote = "LP++'s bias starts at 0; in its authors' code it starts at random."

    @dataclass(frozen=True)
    class Params(Searching):
        steps: int = param(300, "gradient steps, each on all images", minimum=1)
        momentum: float = param(0.9, "SGD's, of W and b", minimum=0)
        alpha_grad: Literal["accumulated", "last"] = param(
            "accumulated", "α's steps take the sum of all gradients so far, as the code does, or the last gradient",
            choices=("accumulated", "last"),
        )  # fmt: skip
        crop: float = param(0.5, "smallest share of the image in a training view", minimum=0.01, maximum=1)

    def head(self, task: TaskData, rng: torch.Generator) -> Blend:
        return Blend(self.text(task))

    def train(self, seed: int, report: ProgressCallback) -> None:
        progress = Progress(report, len(self.tasks) * self.params.steps)
        for head, task in zip(self.heads, self.tasks, strict=True):
            self._train(head, task, progress)

    def _train(self, head: Blend, task: TaskData, progress: Progress) -> None:
        p, device = self.params, self.clip.device
        images, labels = self.prepared(task.views[0].to(device)), task.labels.to(device)
        rate, rate_of_alpha = head.start(images, labels)
        similar = images @ head.text.T
        quick = torch.optim.SGD([head.weights, head.bias], lr=rate, momentum=p.momentum)
        slow = torch.optim.SGD([head.alpha], lr=rate_of_alpha)
        val = self.validation(task) if p.search == "val" else None
        right: list[int] = []
        best: dict[str, Tensor] = {}
        log = self.logs[task.name] = Log(f"{self.name}, {task.name}", p.steps)
        for step in range(1, p.steps + 1):
            log.start_step()
            logits = head.blended(images, similar)
            loss = F.cross_entropy(logits, labels)
            log.note(loss, logits, labels)
            log.end_epoch()
            quick.zero_grad()
            if p.alpha_grad == "last":
                slow.zero_grad()
            loss.backward()
            quick.step()
            if step % EVERY == 0:
                slow.step()
            if val:
                with torch.no_grad():
                    right.append(int((head(val[0]).argmax(dim=1) == val[1]).sum()))
                if right[-1] == max(right):
                    best = {name: value.clone() for name, value in head.state_dict().items()}
            progress()
        log.close()
        if right:
            steps = [{"iteration": float(step)} for step in range(p.steps, 0, -1)]
            self.choices[task.name] = choose(steps, right[::-1], len(task.val_labels))
            head.load_state_dict(best)

    def search(self, head: Any, task: TaskData) -> Choice | None:
        return None  # made on the way
