"""What tests have done in another process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.cells import Cell
from bench.config import RunConfig
from bench.evaluate import evaluate
from bench.plan import prepare


def evaluated(config: RunConfig, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    plan = prepare(config)
    return [record.to_json() for cell in cells for record in evaluate(plan, [cell])]


def unchanged(config: RunConfig, cells: Sequence[Cell]) -> tuple[RunConfig, Sequence[Cell]]:
    return config, cells
