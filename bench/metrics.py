"""The two metrics of the suites, in percent."""

from __future__ import annotations

import torch
from torch import Tensor


def overall_acc(predicted: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy over all images."""
    return 100 * float((predicted == labels).double().mean())


def mean_acc(predicted: Tensor, labels: Tensor) -> float:
    """Mean of per-class recall; classes absent from the test split are left out of the mean."""
    total = torch.bincount(labels)
    right = torch.bincount(labels[predicted == labels], minlength=len(total))
    present = total > 0
    return 100 * float((right[present].double() / total[present]).mean())


METRICS = {"overall_acc": overall_acc, "mean_acc": mean_acc}
