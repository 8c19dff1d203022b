"""ProtoNet: the nearest class mean, as a loop over images says it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.errors import UserError
from bench.methods import TaskData
from bench.methods.protonet import ProtoNet

CLIP: Any = SimpleNamespace(device=torch.device("cpu"), scale=50.0)


@pytest.fixture
def tasks() -> list[TaskData]:
    rng = torch.Generator().manual_seed(0)
    made = []
    for t, n_classes in enumerate((2, 5)):
        labels = torch.arange(n_classes).repeat(3)[torch.randperm(3 * n_classes, generator=rng)]
        features = torch.randn(len(labels), 8, generator=rng) * torch.rand(len(labels), 1, generator=rng) * 10
        names = tuple(f"class {c}" for c in range(n_classes))
        made.append(TaskData(f"task {t}", "", names, "{}", torch.zeros(1, 0, 8), labels, test_view=features))
    return made


def fitted(tasks: list[TaskData]) -> ProtoNet:
    method = ProtoNet()
    method.fit(CLIP, tasks, 1, lambda done, total: None)
    return method


def test_scores_are_those_of_a_plain_loop(tasks: list[TaskData]) -> None:
    method = fitted(tasks)
    images = torch.randn(7, 8, generator=torch.Generator().manual_seed(1))
    for task in tasks:
        scores = method.predict(task, images)
        assert scores.shape == (7, len(task.class_names))
        for i, image in enumerate(images):
            for c in range(len(task.class_names)):
                mean = torch.zeros(8)
                for shot, label in zip(task.test_view, task.labels, strict=True):
                    if label == c:
                        mean += shot / shot.norm() / 3
                expected = 50.0 * torch.dot(image, mean) / image.norm() / mean.norm()
                assert scores[i, c].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)


def test_an_image_s_length_does_not_weigh_in_its_class_mean(tasks: list[TaskData]) -> None:
    images = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    longer = [replace(t, test_view=t.test_view * torch.linspace(1, 9, len(t.test_view))[:, None]) for t in tasks]
    torch.testing.assert_close(fitted(longer).predict(tasks[1], images), fitted(tasks).predict(tasks[1], images))


def test_an_unseen_class_is_an_error_that_says_why(tasks: list[TaskData]) -> None:
    with pytest.raises(UserError, match=r"protonet cannot score .* it knows a class by its images"):
        fitted(tasks).predict(tasks[0], torch.randn(1, 8), ["a new class"])


def test_the_footnote_says_that_the_paper_s_row_is_not_comparable() -> None:
    assert "not comparable" in " ".join(ProtoNet.footnote.split())
