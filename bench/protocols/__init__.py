"""Protocols: one file each; `find_protocol` finds one by its name."""

from __future__ import annotations

from bench.errors import UserError, nearest
from bench.protocols.base import Part, Protocol
from bench.protocols.base2new import Base2New
from bench.protocols.few_shot import FewShot

__all__ = ["PROTOCOLS", "Part", "Protocol", "find_protocol"]

PROTOCOLS: dict[str, Protocol] = {p.name: p for p in (FewShot(), Base2New())}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises
    ------
    UserError : there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name!r} is unknown; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
