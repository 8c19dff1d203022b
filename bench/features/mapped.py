"""Training views of very many tasks: in a file that is mapped, not in the process's memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError

IN_MEMORY = 2_000_000_000  # bytes of a cell's training views


def mapped(tensors: Iterable[Tensor], folder: Path) -> list[Tensor]:
    """float32 tensors [...] as they are, or, if together they take more than IN_MEMORY, mapped from a temporary file.

    Of such a file the system keeps in memory what it has room for, and a training step reads the rows of its own
    images alone. On Linux and macOS it has no name, so nothing is left behind, even by a kill.

    Raises
    ------
    UserError : the folder's disk has no room for it.
    """
    rest, held, size = iter(tensors), list[Tensor](), 0
    for tensor in rest:
        held.append(tensor)
        size += tensor.nbytes
        if size > IN_MEMORY:
            break
    else:
        return held
    shapes = []
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            for tensor in chain((held.pop(0) for _ in range(len(held))), rest):
                file.write(tensor.contiguous().numpy().data)
                shapes.append(tensor.shape)
            file.flush()
        except OSError as error:
            raise UserError(
                f"'{folder}': no room for the training views ({error.strerror}); free some, set BENCH_CACHE to another "
                "disk, or take fewer with --views"
            ) from error
        whole = torch.from_numpy(np.memmap(file, np.float32, mode="r+"))
    ends = np.cumsum([shape.numel() for shape in shapes])
    return [whole[end - shape.numel() : end].view(shape) for shape, end in zip(shapes, ends.tolist(), strict=True)]
