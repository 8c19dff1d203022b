"""Protocols: one file each; `find_protocol` finds one by its name."""

from __future__ import annotations

import re

from bench.errors import UserError, nearest
from bench.protocols.base import Fold, Part, Protocol
from bench.protocols.base2new import Base2New
from bench.protocols.few_shot import FewShot
from bench.protocols.imbalanced import Imbalanced
from bench.protocols.unseen_task import UnseenTask

__all__ = ["PROTOCOLS", "Fold", "Part", "Protocol", "find_protocol"]

PROTOCOLS: dict[str, Protocol] = {p.name: p for p in (FewShot(), Base2New(), UnseenTask(), Imbalanced())}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name, such as "base2new", or "unseen-task:4" for one in four folds.

    Raises
    ------
    UserError : there is none.
    """
    kind, colon, k = name.partition(":")
    if kind == UnseenTask.name and colon:
        if not k.isdecimal():
            raise UserError(f"--protocol {name!r}: write {kind}:4 for four folds of tasks")
        return UnseenTask(int(k))
    if kind == Imbalanced.name and colon:
        if not re.fullmatch("[1-9][0-9]{0,2}", k) or k == "1":
            raise UserError(
                f"--protocol {name!r}: write {kind}:10 for classes of 10 : 1 images, or another ratio up to 999"
            )
        return Imbalanced(int(k))
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name!r} is unknown; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
