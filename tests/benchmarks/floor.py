"""What arithmetic allows: the time of a text tower's matrix products alone, at the rate this machine has for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


def seconds(what: Callable[[], Any]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def text_floor(n_tokens: int, n_rows: int, width: int, layers: int) -> float:
    """Seconds for n_tokens tokens forward, and backward to the inputs (weights are frozen); of the last block's MLP
    and output projection n_rows rows are needed. Each shape is timed, not guessed; attention is not counted."""

    def product(rows: int, inputs: int, outputs: int) -> float:
        x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        g = torch.randn(rows, outputs)
        return min(seconds(lambda: (F.linear(x, weight), g @ weight)) for _ in range(4))

    qkv = product(n_tokens, width, 3 * width)
    shapes = ((width, width), (width, 4 * width), (4 * width, width))
    rest = sum(product(n_tokens, *shape) for shape in shapes)
    last = sum(product(n_rows, *shape) for shape in shapes)
    return layers * qkv + (layers - 1) * rest + last
