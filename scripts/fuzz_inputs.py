"""Inputs for `scripts/fuzz.py`: valid examples changed at random, with an eye to what is in them.

Everything follows from the `random.Random` that is given: the same seed makes the same inputs.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from bench.errors import UserError

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 7, 255, 2**31, 2**31 - 1, 2**53 + 1, 2**63, -(2**63), 10**30, 10**400),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf),
)
TEXTS: tuple[str, ...] = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        "\r\n",
        "\t",
        "\x1b[2J",
        "\u202e",
        "\ufeff",
        "e\u0301\u00e9",
        "\U0001f98b" * 3,
    ),
    *("\ud800", "a" * 300, "x" * 100_000, "../../escaped", "/escaped", "../" * 40 + "escaped", "..\\escaped"),
    *("C:\\escaped", "//host/escaped", "aux", "con.json", ".", "..", "~", "~nobody/x", "file:///etc/passwd"),
    *(
        "{}",
        "{0.__class__}",
        "{x}",
        "%s%n",
        "$(id)",
        "`id`",
        "<script>alert(1)</script>",
        "\\input{x}",
        "|",
        "__class__",
    ),
    *(
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "0x10",
        "1_000",
        "\u0663",
        "true",
        "null",
        "None",
        "os:system",
        "-",
        "--",
        "#",
    ),
    *("http://127.0.0.1:9/x", "!!python/object/apply:os.system [id]", "&a [*a]", "*a", "? x", "- x", '"', "'"),
)
LITERALS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"a": {"a": 1}}})
BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x80",
    b"\r",
    b"[",
    b"{",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"\x93NUMPY",
    b"\x80\x04c",
    b"../",
    b"%00",
)


def odd_value(rng: Random) -> Any:
    """A value that hardly anything expects."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return copy.deepcopy(rng.choice(LITERALS))
    value: Any = rng.choice(NUMBERS)
    for _ in range(rng.choice((1, 3, 60))):
        value = [value] if rng.random() < 0.5 else {rng.choice(TEXTS[:20]): value}
    return value


def changed_tree(value: Any, rng: Random, times: int = 0) -> Any:
    """A JSON-like value with some of its nodes replaced, removed, doubled, renamed, swapped or wrapped."""
    root = [copy.deepcopy(value)]
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _places(root, places)
        holder, key = rng.choice(places)
        what = rng.randrange(8)
        if what == 0 and holder is not root:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS) if rng.random() < 0.5 else f"{key}x"] = holder.pop(key)
        elif what == 2 and isinstance(holder, list) and holder is not root:
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif what == 3:
            other, there = rng.choice(places)
            holder[key] = copy.deepcopy(other[there])
        elif what == 4:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        elif what == 5 and isinstance(holder[key], str):
            holder[key] = changed_text(holder[key], rng)
        elif what == 6 and isinstance(holder[key], int | float):
            half = holder[key] * 1.5 if abs(holder[key]) < 1e300 else 1.5  # more, and it is no float
            holder[key] = rng.choice((str(holder[key]), -holder[key], holder[key] + 1, half, bool(holder[key])))
        else:
            holder[key] = odd_value(rng)
    return root[0]


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)


def changed_text(text: str, rng: Random) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice((text[:at] + rng.choice(TEXTS) + text[at:], text[:at], text[at:], text * 2, text.swapcase()))


def changed_bytes(data: bytes, rng: Random, times: int = 0) -> bytes:
    """Bits flipped, parts cut, doubled, moved, overwritten or put in."""
    out = bytearray(data)
    for _ in range(times or rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) + 1)
        upto = min(len(out), at + rng.choice((1, 2, 4, 8, 64, 1024)))
        what = rng.randrange(8)
        if what == 0:
            del out[at:]
        elif what == 1:
            del out[at:upto]
        elif what == 2:
            out[at:at] = out[at:upto]
        elif what == 3:
            out[at:at] = rng.choice(BYTES)
        elif what == 4 and at < len(out):
            out[at:upto] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * (upto - at)
        elif what == 5 and len(out) - at >= 8:
            out[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**32, 2**63, 2**64 - 1)))
        elif at < len(out):
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def json_bytes(value: Any, rng: Random) -> bytes:
    """JSON as Python and others write it: NaN, lone surrogates and huge numbers among it."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


def changed_json(value: Any, rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.02:
        depth = rng.choice((500, 5000, 100_000))
        return rng.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    data = json_bytes(changed_tree(value, rng), rng) if kind < 0.8 else json_bytes(value, rng)
    return changed_bytes(data, rng) if kind > 0.7 else data


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    return yaml.safe_load(text)


def changed_yaml(text: str, rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.02:
        depth = rng.choice((200, 2000, 20_000))
        return rng.choice(
            ("[" * depth, "{a: " * depth, "- " * depth, "".join(f"{' ' * k}a:\n" for k in range(300)))
        ).encode()
    if kind < 0.04:  # aliases of aliases: short to write, endless to print
        levels = [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
        return "\n".join(["a0: &a0 [x, x]", *levels, text]).encode()
    if kind < 0.7:
        changed = changed_tree(_parsed(text), rng)
        if rng.random() < 0.5:
            return json_bytes(changed, rng)
        try:
            return yaml.safe_dump(changed, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, RecursionError):
            return json_bytes(changed, rng)
    return changed_lines(text, rng) if kind < 0.85 else changed_bytes(text.encode(), rng)


def changed_lines(text: str, rng: Random) -> bytes:
    """Lines and the cells in them removed, doubled, swapped or replaced."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        what = rng.randrange(6)
        if what == 0:
            del lines[at]
            lines = lines or [""]
        elif what == 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif what == 2:
            lines[at] = changed_text(lines[at], rng)
        else:
            mark = rng.choice((",", "\t", " ", ":", ";", "/"))
            cells = lines[at].split(mark)
            cells[rng.randrange(len(cells))] = str(rng.choice(NUMBERS[:11] + NUMBERS[13:] + TEXTS))
            lines[at] = mark.join(cells)
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return changed_bytes(data, rng) if rng.random() < 0.2 else data


def changed_safetensors(data: bytes, rng: Random) -> bytes:
    """The header as JSON, its length, and the numbers behind it."""
    if rng.random() < 0.3:
        return changed_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.get("__metadata__", {})
    inside = [key for key, text in metadata.items() if text[:1] in "[{"]
    if inside and rng.random() < 0.5:  # JSON within the JSON
        key = rng.choice(inside)
        metadata[key] = changed_json(json.loads(metadata[key]), rng).decode("utf-8", "replace")
    else:
        header = changed_tree(header, rng)
    text = json_bytes(header, rng)
    if rng.random() < 0.2:
        text = changed_bytes(text, rng)
    if rng.random() < 0.2:
        rest = changed_bytes(rest, rng) if rng.random() < 0.5 else rest[: rng.randrange(len(rest) + 1)]
    said = len(text) if rng.random() < 0.9 else rng.choice((0, 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", said) + text + rest


@dataclass(frozen=True)
class Reader:
    """file : what is written for each input. make : its content. read : what a command does with it.

    refuses : the exceptions that stand for "refused in a line". share : of all inputs, relative to other readers.
    """

    file: Path
    make: Callable[[Random], bytes]
    read: Callable[[], object]
    refuses: tuple[type[Exception], ...] = (UserError,)
