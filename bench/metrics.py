"""The two metrics of the suites, in percent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # data commands know the metrics' names without it
    from torch import Tensor


def overall_acc(predicted: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy over all images."""
    return 100 * float((predicted == labels).double().mean())


def mean_acc(predicted: Tensor, labels: Tensor) -> float:
    """Mean of per-class recall; classes absent from the test split are left out of the mean."""
    total = labels.bincount()
    right = labels[predicted == labels].bincount(minlength=len(total))
    present = total > 0
    return 100 * float((right[present].double() / total[present]).mean())


METRICS = {"overall_acc": overall_acc, "mean_acc": mean_acc}
