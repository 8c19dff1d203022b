"""What arithmetic allows: the time of a text tower's matrix products alone, at the rate this machine has for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from bench.clip.text import TextTower


def seconds(what: Callable[[], Any]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def own_tokens(tower: TextTower, names: Sequence[str]) -> tuple[int, int]:
    """Tokens that stand behind the context in "<name>." and EOT: of all names, and of these the different ones (a token
    of a causal tower is the same one in two names if all that stands before it is)."""
    sentences = [(*tower.tokens(f"{name}."), tower.tokenizer.eot_token_id) for name in names]
    different = {sentence[:n] for sentence in sentences for n in range(1, len(sentence) + 1)}
    return sum(len(sentence) for sentence in sentences), len(different)


def text_floor(n_tokens: int, n_rows: int, width: int, layers: int) -> float:
    """Seconds of all matrix products of a step, one after the other as a step has them: n_tokens tokens forward, and
    backward to the inputs (weights are frozen); of the last block's MLP and output projection n_rows rows are needed.

    Nothing else is counted: not attention, whose products are small, and no element-wise work. Two parts that a step
    can do without are counted: in the first layer gradients of rows that are constants, in the last one queries of rows
    that are not read; together 1.7 % at General-10's sizes.
    """
    shapes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))  # inputs, outputs
    weights = [[torch.randn(outputs, inputs) for inputs, outputs in shapes] for _ in range(layers)]
    rows = [[n_tokens] * 4 for _ in range(layers - 1)] + [[n_tokens, n_rows, n_rows, n_rows]]
    sizes = [(n, weight) for some, own in zip(rows, weights, strict=True) for n, weight in zip(some, own, strict=True)]
    inputs = {(n, weight.shape[1]): torch.randn(n, weight.shape[1]) for n, weight in sizes}
    gradients = {(n, weight.shape[0]): torch.randn(n, weight.shape[0]) for n, weight in sizes}

    def products() -> None:
        for n, weight in sizes:
            F.linear(inputs[n, weight.shape[1]], weight)
        for n, weight in reversed(sizes):
            gradients[n, weight.shape[0]] @ weight

    products()
    return min(seconds(products) for _ in range(2))
