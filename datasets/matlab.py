"""MATLAB files (version 5 to 7.2) as values: numbers, texts, cells and structs; nothing in them is run.

The form is MathWorks' "MAT-File Format". scipy's compiled reader is not used: some damaged files end the process in it.
This one is Python throughout, and reads what lists of images and classes are made of.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

MOST_BYTES = 32_000_000  # of a file or of what is unpacked from it: the longest list that there is takes 3 MB
DEEPEST = 50  # levels of cells and structs within each other
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15  # types of elements
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT, CHAR = 1, 2, 4  # classes of arrays
NUMERIC = range(6, 16)
COMPLEX = 0x800

Element = tuple[int, memoryview]  # type and content


def read_matlab(data: bytes, name: str) -> list[Any]:
    """The entries of an array, column by column: numbers; texts; of a struct array, dicts.

    Arrays within it are a number where they have one entry, a text, a dict, or else a list.

    Raises
    ------
    KeyError : no array has that name. ValueError : it is no MATLAB file of these versions, damaged, or holds what is
        neither number, text, cell nor struct.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES / 1e6:.0f} MB")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack(f"{order}H", data[124:126]) != (0x0100,):
        raise ValueError("its header is not that of versions 5 to 7.2")
    for kind, content in _elements(memoryview(data)[128:], order):
        if kind == COMPRESSED:
            kind, content = next(_elements(memoryview(_unpacked(content)), order), (0, content))
        if kind != MATRIX:
            raise ValueError(f"an element of type {kind} where an array is due")
        found = _Array(content, order)
        if found.name == name:
            return found.entries(DEEPEST)
    raise KeyError(name)


class _Array:
    """One array; its content is read when it is asked for."""

    def __init__(self, content: memoryview, order: str) -> None:
        self.order, self.rest = order, _elements(content, order)
        flags = self._next(UINT32)
        if len(flags) != 8:
            raise ValueError("flags that are none")
        (word,) = struct.unpack(f"{order}I", flags[:4])
        self.kind, self.is_complex = word & 0xFF, bool(word & COMPLEX)
        self.shape = [int(n) for n in np.frombuffer(self._next(INT32), f"{order}i4")]
        if len(self.shape) < 2 or min(self.shape) < 0:
            raise ValueError(f"an array of shape {self.shape}")
        self.name = bytes(self._next(INT8)).decode("latin-1")

    def entries(self, levels: int) -> list[Any]:
        """levels : how deep arrays in it may be nested."""
        n = math.prod(self.shape)
        if self.is_complex:
            raise ValueError("complex numbers")
        if self.kind in NUMERIC:
            kind, content = self._element()
            if kind not in NUMBERS:
                raise ValueError(f"numbers of type {kind}")
            found: list[Any] = np.frombuffer(content, self.order + NUMBERS[kind]).tolist()
        elif self.kind == CHAR:
            return self._texts(n)
        elif self.kind == CELL:
            found = [array.value(levels) for array in self._arrays()]
        elif self.kind == STRUCT:
            found = self._structs(n, levels)
        else:
            raise ValueError(f"an array of class {self.kind}, neither numbers, text, cell nor struct")
        if len(found) != n:
            raise ValueError(f"{len(found)} entries in an array of {n}")
        return found

    def value(self, levels: int) -> Any:
        if not levels:
            raise ValueError(f"more than {DEEPEST} arrays within each other")
        found = self.entries(levels - 1)
        return found[0] if len(found) == 1 and self.kind != CELL else found

    def _texts(self, n: int) -> list[str]:
        """A text a row."""
        if n == 0:
            return [""]
        kind, content = self._element()
        if kind not in TEXTS:
            raise ValueError(f"text of type {kind}")
        wide = TEXTS[kind] in ("utf-16", "utf-32")
        text = bytes(content).decode(TEXTS[kind] + ("-le" if self.order == "<" else "-be") * wide)
        rows = self.shape[0]
        if rows > 1 and len(text) != n:
            raise ValueError(f"{len(text)} characters in a text of shape {self.shape}")
        return [text] if rows == 1 else [text[row::rows].rstrip() for row in range(rows)]

    def _structs(self, n: int, levels: int) -> list[dict[str, Any]]:
        size = self._next(INT32)
        (length,) = struct.unpack(f"{self.order}i", size) if len(size) == 4 else (0,)
        names = bytes(self._next(INT8))
        if length < 1 or len(names) % length:
            raise ValueError("names of fields that cannot be told apart")
        fields = [names[i : i + length].partition(b"\0")[0].decode("latin-1") for i in range(0, len(names), length)]
        values = [array.value(levels) for array in self._arrays()]
        if len(values) != n * len(fields):
            raise ValueError(f"{len(values)} values in {n} structs of {len(fields)} fields")
        rows = [values[i : i + len(fields)] for i in range(0, len(values), len(fields) or 1)]
        return [dict(zip(fields, row, strict=True)) for row in rows]

    def _arrays(self) -> Iterator[_Array]:
        for kind, content in self.rest:
            if kind != MATRIX:
                raise ValueError(f"an element of type {kind} where an array is due")
            yield _Array(content, self.order)

    def _element(self) -> Element:
        found = next(self.rest, None)
        if found is None:
            raise ValueError("an array ends too early")
        return found

    def _next(self, wanted: int) -> memoryview:
        kind, content = self._element()
        if kind != wanted:
            raise ValueError(f"an element of type {kind}, not {wanted}")
        return content


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError("ends within an element")
        kind, size = struct.unpack(f"{order}II", data[at : at + 8])
        if kind >> 16:  # a small element: type and size in one word, up to 4 bytes of content in the next
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            end = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > min(end, len(data)):
            raise ValueError("ends within an element")
        yield kind, data[start : start + size]
        at = end


def _unpacked(content: memoryview) -> bytes:
    """What a compressed element holds, up to a bound: a few bytes may claim gigabytes."""
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"cannot be unpacked: {error}") from None
    if unpacking.unconsumed_tail:
        raise ValueError(f"more than {MOST_BYTES / 1e6:.0f} MB")
    return data
