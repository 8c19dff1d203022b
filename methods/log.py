"""Loss and accuracy of a training, epoch by epoch, without a step that waits for the device.

A step adds its loss and which of its images were right to lists, on the device. Where an epoch is over, two numbers
start on their way to the host; they are read once they are there, and a loss that is not finite stops the training.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.errors import UserError

# Scores are τ · cosine and CLIP's τ is 100: no cross-entropy of theirs passes 200 + log C. More is a fault.
EXPLODED = 1000.0
SHOWN = 5  # losses before the one that stopped a training


class Copy:
    """A device's values on their way to the host. Without CUDA they are there at once."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))
        else:
            self._values = values.cpu()

    @property
    def there(self) -> bool:
        return self._event is None or self._event.query()

    def read(self) -> list[float]:
        """The values; waits until they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


class Log:
    """What is seen of one training.

    Attributes
    ----------
    loss, accuracy : one number an epoch: mean cross-entropy of its images, and the percentage that was right; of each
        image before its step, in its training view, among the classes that its step scored.
    """

    def __init__(self, whose: str, epochs: int) -> None:
        self.whose, self.epochs = whose, epochs
        self.loss: list[float] = []
        self.accuracy: list[float] = []
        self._steps = 0
        self._noted: list[tuple[int, Tensor, Tensor]] = []  # of this epoch: step, mean loss, which were right
        self._ended: deque[tuple[Sequence[int], Tensor, Copy]] = deque()  # epochs that the host has not read

    def start_step(self) -> None:
        self._steps += 1

    def note(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """The mean loss of a batch or a part of one, its logits [B, C] and its labels [B]."""
        self._noted.append((self._steps, loss.detach(), logits.detach().argmax(dim=1) == labels))

    def end_epoch(self) -> None:
        """Sum up the epoch, and look at those before it whose numbers have arrived."""
        if self._noted:  # a method with a loss of its own may note nothing
            steps, losses, right = zip(*self._noted, strict=True)
            self._noted = []
            mean_losses = torch.stack(losses).float()
            sizes = torch.tensor([len(r) for r in right], dtype=torch.float32)
            share = (sizes / sizes.sum()).to(mean_losses.device, non_blocking=True)
            means = torch.stack([(mean_losses * share).sum(), torch.cat(right).float().mean()])
            self._ended.append((steps, mean_losses, Copy(means)))
        while self._ended and self._ended[0][2].there:
            self._read()

    def state(self) -> dict[str, Any]:
        """All that was seen, as `restore` takes it. Waits for the device."""
        self.close()
        return {"loss": self.loss, "accuracy": self.accuracy, "steps": self._steps, "noted": self._noted}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a `state`."""
        self.loss, self.accuracy, self._steps = state["loss"], state["accuracy"], state["steps"]
        self._noted = [(step, loss.to(device), right.to(device)) for step, loss, right in state["noted"]]

    def close(self) -> None:
        """Wait for the last epochs' numbers."""
        while self._ended:
            self._read()

    def _read(self) -> None:
        steps, losses, means = self._ended.popleft()
        loss, accuracy = means.read()
        if not math.isfinite(loss) or loss > max(EXPLODED, 100 * self.loss[0] if self.loss else 0):
            self._stop(steps, losses.tolist())
        self.loss.append(loss)
        self.accuracy.append(100 * accuracy)

    def _stop(self, steps: Sequence[int], losses: list[float]) -> None:
        """Refuse to go on: name the first step whose loss is not finite, or the one with the highest."""
        faults = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
        i = faults[0] if faults else losses.index(max(losses))
        told = [f"{self.whose}: the loss is {losses[i]:.4g} at step {steps[i]}, in epoch {len(self.loss) + 1} of "
                f"{self.epochs}"]  # fmt: skip
        if i:
            told.append(f"before it {', '.join(f'{loss:.4g}' for loss in losses[max(0, i - SHOWN) : i])}")
        if self.loss:
            told.append(f"mean of the epoch before: {self.loss[-1]:.4g}")
        if steps[i] > 1:
            told.append("a lower learning rate (lr) may help")
        raise UserError("; ".join(told))
