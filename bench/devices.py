"""The device that towers and trainings run on, by its name on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.errors import UserError

if TYPE_CHECKING:  # the command line checks names without torch
    import torch


def check_device(name: str) -> str:
    """Refuse what is not the name of a device, whatever this machine has."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name):
        raise UserError(f"--device {name!r}: one of auto, cpu, cuda, cuda:N (N from 0), mps")
    return name


def find_device(name: str) -> str:
    """A device of this machine; "auto": CUDA's where there is one, else the CPU.

    Apple's GPU (mps) is taken only when asked for: how close its float32 is to the CPU's was not measured.

    Raises
    ------
    UserError : no such name, or no such device here.
    """
    import torch

    kind, _, number = check_device(name).partition(":")
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return "cuda" if n else "cpu"
    if kind == "cuda" and not n:
        raise UserError(f"--device {name}: this machine has no CUDA device; use --device cpu")
    if number and int(number) >= n:
        there = "only cuda:0" if n == 1 else f"cuda:0 to cuda:{n - 1}"
        raise UserError(f"--device {name}: this machine has {there}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this machine has no Apple GPU that torch can use; use --device cpu")
    return name


def device_name(device: torch.device) -> str:
    """What records call it: a CUDA card by its name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
