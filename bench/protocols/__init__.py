"""Protocols: one file each; `find_protocol` finds one by its name."""

from __future__ import annotations

from bench.errors import UserError, nearest
from bench.protocols.base import Fold, Part, Protocol
from bench.protocols.base2new import Base2New
from bench.protocols.few_shot import FewShot
from bench.protocols.imbalanced import Imbalanced
from bench.protocols.source_task import SourceTask
from bench.protocols.suite_to_suite import SuiteToSuite
from bench.protocols.unseen_task import UnseenTask

__all__ = ["PROTOCOLS", "Fold", "Part", "Protocol", "SuiteToSuite", "find_protocol"]

KINDS: tuple[type[Protocol], ...] = (FewShot, Base2New, UnseenTask, SourceTask, SuiteToSuite, Imbalanced)
PROTOCOLS = {kind.name: kind for kind in KINDS}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name, such as "base2new", or "unseen-task:4" for one in four folds.

    Raises
    ------
    UserError : there is none, or what stands after the colon says nothing to it.
    """
    kind, colon, argument = name.partition(":")
    if kind not in PROTOCOLS:
        raise UserError(f"--protocol {name!r} is unknown; {nearest(kind, PROTOCOLS)}")
    return PROTOCOLS[kind].called(argument if colon else None)
