"""MATLAB files: what scipy writes is read back, forms that it does not write are put together by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from bench.datasets.matlab import MOST_BYTES, read_matlab

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def written(value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    savemat(out, {"other": [[7]], "x": value, "last": "text"}, **options)
    return out.getvalue()


def cells(*values: Any) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def structs(*rows: tuple[Any, ...]) -> np.ndarray:
    found = np.zeros((1, len(rows)), dtype=[("fname", object), ("class", object)])
    for n, row in enumerate(rows):
        found[0, n] = row
    return found


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("value", "entries"),
    [
        ([[1, 2, 300]], [1, 2, 300]),
        ([[1.5, -2.0]], [1.5, -2.0]),
        (np.array([[1, 2], [3, 4]], dtype=np.uint8), [1, 3, 2, 4]),  # column by column
        (np.array([[-5, 2**40]]), [-5, 2**40]),
        (np.zeros((1, 0)), []),
        ("Müller 2012 – ☃", ["Müller 2012 – ☃"]),
        ("", [""]),
        (["ab", "c"], ["ab", "c"]),  # rows of characters
        (cells("BMW M3 2012", "Fiat"), ["BMW M3 2012", "Fiat"]),
        (cells(7, [[1, 2]], "a"), [7, [1, 2], "a"]),
        (cells(cells("a", 1)), [["a", 1]]),
        (structs(("1.jpg", 1), ("2.jpg", 2)), [{"fname": "1.jpg", "class": 1}, {"fname": "2.jpg", "class": 2}]),
    ],
)
def test_what_scipy_writes_is_read_back(value: Any, entries: list[Any], compressed: bool) -> None:
    assert read_matlab(written(value, do_compression=compressed), "x") == entries


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(kind: int, shape: tuple[int, int], *content: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}II", kind, 0), struct.pack(f"{order}ii", *shape)
    parts = element(6, head[0], order), element(5, head[1], order), element(1, b"x", order)
    return element(14, b"".join((*parts, *content)), order)


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        (array(6, (1, 3), element(2, b"\x01\x02\xff")), [1, 2, 255]),  # doubles kept as bytes, as MATLAB does
        (array(6, (1, 2), struct.pack("<HHBBxx", 2, 2, 5, 6)), [5, 6]),  # type, size and content in one word each
        (array(4, (1, 2), element(4, "né".encode("utf-16-le"))), ["né"]),  # MATLAB's own texts are 16-bit
        (array(4, (1, 2), element(18, "né".encode("utf-32-le"))), ["né"]),
    ],
)
def test_forms_that_matlab_writes(content: bytes, entries: list[Any]) -> None:
    assert read_matlab(HEADER + content, "x") == entries
    assert read_matlab(HEADER + element(15, zlib.compress(content)), "x") == entries


def test_the_other_order_of_bytes() -> None:
    numbers = array(9, (1, 2), element(3, struct.pack(">hh", -2, 500), ">"), order=">")
    text = array(4, (1, 2), element(4, "né".encode("utf-16-be"), ">"), order=">")
    header = HEADER[:124] + b"\x01\x00MI"
    assert read_matlab(header + numbers, "x") == [-2, 500]
    assert read_matlab(header + text, "x") == ["né"]


# Input 212 of `scripts/fuzz.py --only "MATLAB lists" -n 2000`, shortened: scipy 1.17's loadmat ends the process on it.
SEGFAULT = bytes.fromhex(
    "0e000000e00100000000000000000000020000000000000005000000080000000100000002000000010000000b000000"
    "616e6e6f746174696f6e7300000000000500040008000000010000001800000000000000000000000000000000000000"
    "00000000000000000e0000003800000000000000000000000e0000000000000005000400000000000100000000000000"
    "0000000000000000"
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (HEADER + SEGFAULT, "ends within an element"),
        (HEADER + b"\x0e\x00\x00\x00" + struct.pack("<I", len(SEGFAULT) - 8) + SEGFAULT[8:], "type 0, not 6"),
        (b"", "header"),
        (HEADER[:124] + b"\x00\x02IM", "header"),  # version 7.3 is HDF5
        (HEADER + element(9, bytes(8)), "an element of type 9 where an array is due"),
        (HEADER + array(6, (1, 3), element(2, b"\x01\x02")), "2 entries in an array of 3"),
        (HEADER + array(6, (1, 2**31 - 1), element(2, b"")), "0 entries in an array of 2147483647"),
        (HEADER + array(6, (1, 1)), "ends too early"),
        (HEADER + array(6, (-1, 1), element(2, b"\x01")), "shape"),
        (HEADER + array(1, (1, 2), array(6, (1, 1), element(2, b"\x01"))), "1 entries in an array of 2"),
        (HEADER + array(2, (1, 1), element(5, bytes(4)), element(1, b"name")), "told apart"),
        (HEADER + array(5, (1, 1)), "an array of class 5"),
        (HEADER + array(6, (1, 1), element(2, b"\x01"))[:-9], "ends within an element"),
        (HEADER + element(15, b"no zlib"), "cannot be unpacked"),
        (HEADER + element(15, zlib.compress(bytes(MOST_BYTES + 1))), "more than 32 MB"),
        (bytes(MOST_BYTES + 1), "more than 32 MB"),
    ],
)
def test_a_damaged_file_is_refused_and_says_why(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_matlab(data, "x")


def test_arrays_nested_too_deeply_are_refused() -> None:
    inner = array(6, (1, 1), element(2, b"\x01"))
    for _ in range(1000):
        inner = array(1, (1, 1), inner)
    with pytest.raises(ValueError, match="more than 50 arrays within each other"):
        read_matlab(HEADER + inner, "x")


def test_an_array_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="missing"):
        read_matlab(written([[1]]), "missing")
