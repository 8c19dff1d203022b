"""Where a long training goes on after a kill: one file beside the cell's record, written every so many seconds.

A method's training asks `due`, gives `save` all that the rest of it follows from, and gets that back from `resume`.
The file is safetensors with a JSON text, and holds a checksum. It counts only where the rest of the training would give
the same numbers to the last bit: for the same cells, on the same machine, with the same versions.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.files import from_json, write_whole
from bench.progress import note


class Checkpoint:
    """A training's file to go on from; without a path nothing is kept.

    Parameters
    ----------
    about : what must be the same where the training goes on: the cells' keys, the machine, versions.
    every : seconds from one `save` to the next; 0: nothing is kept.
    hide : the notes, as in `bench.progress`.

    Attributes
    ----------
    seconds : that the training had taken before it was stopped, as far as it was kept.
    """

    def __init__(
        self,
        path: Path | None = None,
        about: Mapping[str, Any] | None = None,
        every: float = 0,
        hide: bool | None = None,
    ) -> None:
        self._path = path if every else None
        self._about, self._every, self._hide = dict(about or {}), every, hide
        self._start = self._last = time.monotonic()  # no clock that may be set back
        self.seconds = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to `save`."""
        return self._path is not None and time.monotonic() - self._last >= self._every

    def save(self, step: int, state: Any) -> None:
        """Keep a state, in place of the one before. On a full disk the training goes on without.

        Parameters
        ----------
        step : how far the training is, an epoch or a step. state : dicts, lists, tensors, texts, numbers, bools, None.
        """
        if self._path is None:
            return
        tensors: dict[str, Tensor] = {}
        now = time.monotonic()
        said = {
            "about": self._about,
            "step": step,
            "seconds": self.seconds + now - self._start,
            "state": _plain(state, tensors),
            "random": _plain(_random_states(), tensors),
        }
        metadata = {"checkpoint": json.dumps(said)}
        metadata["checksum"] = content_hash([metadata["checkpoint"]], tensors)
        try:
            write_whole(self._path, lambda part: save_file(tensors, str(part), metadata=metadata))
        except (OSError, SafetensorError) as error:
            note(f"{self._path.name}: cannot be written ({error}); a kill loses more of this cell", self._hide)
        self._last = time.monotonic()

    def resume(self) -> tuple[int, Any] | None:
        """The step and state that were kept last; None without, and where they are of no use (which is told).

        Also sets the random generators of torch, numpy and Python as they were.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(str(self._path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
            if metadata["checksum"] != content_hash([metadata["checkpoint"]], tensors):
                raise ValueError("damaged")
            said = from_json(metadata["checkpoint"])
            about = said["about"]
            if other := [name for name in {**about, **self._about} if about.get(name) != self._about.get(name)]:
                raise ValueError(f"made with other {', '.join(other)}")
            step, state, seconds = int(said["step"]), _tree(said["state"], tensors), float(said["seconds"])
            generators = _tree(said["random"], tensors)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if isinstance(error, ValueError) else "damaged"
            note(f"{self._path.name}: {why}; the training starts anew", self._hide)
            return None
        _set_random_states(generators)
        self.seconds = seconds
        note(f"{self._path.name}: the training goes on from step {step}", self._hide)
        return step, state


def content_hash(texts: Sequence[str], tensors: Mapping[str, Tensor]) -> str:
    """A hash of texts, and of the names, types, shapes and bytes of tensors."""
    digest = hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=16)
    for name, value in sorted(tensors.items()):
        content = value.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(content.dtype), list(content.shape)]).encode())
        digest.update(content.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON has it; its tensors go into `tensors`. Dicts become lists of pairs: JSON's keys are texts."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(key, tensors), _plain(own, tensors)] for key, own in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(own, tensors) for own in value]
    return value


def _tree(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `_plain` was given; tuples as lists."""
    if isinstance(value, list):
        return [_tree(own, tensors) for own in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {_tree(key, tensors): _tree(own, tensors) for key, own in value["pairs"]}
    return value


def _random_states() -> dict[str, Any]:
    """Of the generators that everybody shares; a method's own are its own to keep."""
    kind, words, *more = np.random.get_state()
    version, inner, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [kind, torch.from_numpy(np.asarray(words).astype(np.int64)), *more],
        "python": [version, list(inner), gauss],
    }


def _set_random_states(states: Mapping[str, Any]) -> None:
    kind, words, *more = states["numpy"]
    version, inner, gauss = states["python"]
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state((kind, words.numpy().astype(np.uint32), *more))
    random.setstate((version, tuple(inner), gauss))
