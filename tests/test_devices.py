"""Devices by name: what is there is taken, what is not is told with what is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.devices import device_name, find_device, synchronise
from bench.errors import UserError
from bench.records import PeakMemory


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`cards(n, apple)`: as if the machine had n CUDA cards, and a GPU of Apple's or none."""

    def pretend(n: int, apple: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return pretend


@pytest.mark.parametrize(
    ("n", "apple", "name", "found"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "cpu"),  # its float32 was never compared with the CPU's: only when asked for
        (2, False, "auto", "cuda"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_a_device_that_is_there_is_taken(cards: Any, n: int, apple: bool, name: str, found: str) -> None:
    cards(n, apple)
    assert find_device(name) == found


@pytest.mark.parametrize(
    ("n", "name", "says"),
    [
        (0, "cuda", "--device cuda: this machine has no CUDA device; use --device cpu"),
        (0, "cuda:1", "--device cuda:1: this machine has no CUDA device; use --device cpu"),
        (1, "cuda:1", "--device cuda:1: this machine has only cuda:0"),
        (3, "cuda:3", "--device cuda:3: this machine has cuda:0 to cuda:2"),
        (2, "mps", "--device mps: this machine has no Apple GPU that torch can use; use --device cpu"),
        (2, "gpu", "--device 'gpu': one of auto, cpu, cuda, cuda:N (N from 0), mps"),
        (2, "cuda:", "--device 'cuda:': one of auto, cpu, cuda, cuda:N (N from 0), mps"),
        (2, "cuda:-1", "--device 'cuda:-1': one of auto, cpu, cuda, cuda:N (N from 0), mps"),
        (2, "cpu:0", "--device 'cpu:0': one of auto, cpu, cuda, cuda:N (N from 0), mps"),
    ],
)
def test_a_missing_device_is_reported_with_those_that_exist(cards: Any, n: int, name: str, says: str) -> None:
    cards(n)
    with pytest.raises(UserError) as error:
        find_device(name)
    assert str(error.value) == says


def test_memory_time_and_name_are_those_of_the_card_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[str, torch.device]] = []

    def card(what: str, answer: Any = None) -> Any:
        return lambda device=None: used.append((what, device)) or answer

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", card("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", card("peak", 3_500_000))
    monkeypatch.setattr(torch.cuda, "synchronize", card("wait"))
    monkeypatch.setattr(torch.cuda, "get_device_name", card("name", "Card B"))
    second = torch.device("cuda:1")
    memory = PeakMemory(second)
    synchronise(second)
    assert (memory.megabytes(), device_name(second)) == (3.5, "Card B")
    assert used == [("reset", second), ("wait", second), ("peak", second), ("name", second)]


def test_memory_and_time_of_apple_s_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7_000_000)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append(1))
    gpu = torch.device("mps")
    synchronise(gpu)
    assert (PeakMemory(gpu).megabytes(), device_name(gpu), waits) == (7.0, "mps", [1])


def test_the_cpu_is_not_waited_for_and_its_memory_is_the_process_s() -> None:
    cpu = torch.device("cpu")
    synchronise(cpu)
    assert device_name(cpu) == "cpu" and PeakMemory(cpu).megabytes() > 10
