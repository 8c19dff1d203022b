"""Unpacking archives that came from the net: zip and tar, packed or not, and a tar inside either.

An archive is data of a stranger. tarfile's own `data_filter` refuses tar members that leave the folder, devices and the
like; zipfile knows no links or devices, and never leaves the folder. What neither bounds is bounded here: the number of
members, and what they unpack to. Only what is asked for is written, into a folder beside the target; it is moved into
place when all of it is there.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import WINDOWS, UserError
from bench.files import is_device

MAX_MEMBERS = 1_000_000  # SUN397, the largest, has a hundred thousand
MAX_GROWTH = 20  # unpacked size over the archive's: images hardly shrink, lists of names do, by 5 to 10
SMALL = 100_000_000  # bytes any archive may unpack to, however small it is
MAX_HEADER = 1_000_000  # bytes of a tar member's long name or attributes, which tarfile holds in memory
CHUNK = 1 << 20
MAX_HOPS = 40  # links from link to link, as in Linux
INNER = (".tar", ".tar.gz", ".tgz")  # what a tar inside an archive is called
FORBIDDEN = frozenset('<>"|?*').union(map(chr, range(32)))  # in a file's name on Windows; it would drop the last dot
# What tarfile, zipfile and what they call raise on broken input: both parse bytes without looking at each first.
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, ArithmeticError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError),
)
LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
Report = Callable[[int, int], None]  # (bytes of the archive that are read, its size)


class Damaged(UserError):
    """What no archive is, or no whole one: fetching it again may help."""


class _Hostile(Exception):
    """What no archive of images has."""


def unpack(
    archive: Path,
    folder: Path,
    wanted: Mapping[str, str],
    report: Report = lambda done, total: None,
    draft: Path | None = None,
) -> None:
    """Take members of an archive into a folder, each whole or not at all; what is there is never touched.

    Parameters
    ----------
    wanted : member (a file or a folder with all below it; "." for everything) → where it goes, relative to `folder`.
        A member of a tar inside the archive is named "outer/inner.tar.gz/member".
    report : called now and then with the bytes read and the bytes there are.
    draft : the folder to unpack to first, which must be on the disk of `folder`; what is in it is removed.

    Raises UserError where the archive is damaged, lacks a wanted member, or holds anything hostile: names outside
    the folder, links that leave it, devices, members that stand twice, encryption, more than can be meant.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError("unpacking takes Python 3.10.12, 3.11.4 or newer: older ones unpack tar archives unsafely")
    draft = draft or folder / f".{archive.name}.unpack"
    for target in wanted.values():
        if there(folder / target):
            raise UserError(f"{folder / target}: is there already and is not overwritten; move it away")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        size = archive.stat().st_size
        bounds = _Bounds(max(SMALL, MAX_GROWTH * size), shutil.disk_usage(draft).free)
        with _told(archive):
            _read(archive, draft, set(wanted), bounds, report)
        for member in wanted:
            if not os.path.lexists(draft / member):
                raise UserError(f"{archive}: holds no {member!r}; is it the right archive?")
        for member, target in sorted(wanted.items(), reverse=True):  # what stands inside another member goes first
            _move(draft / member, folder / target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def there(path: Path) -> bool:
    """Whether something stands at a path; a folder without anything in it is nothing."""
    if path.is_dir() and not path.is_symlink():
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    return os.path.lexists(path)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and source.is_dir():
        target.rmdir()  # fails where it is not empty
    elif os.path.lexists(target):
        raise UserError(f"{target}: is there already and is not overwritten; move it away")
    os.rename(source, target)


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """Errors of the libraries in one line that names the archive."""
    try:
        yield
    except (_Hostile, tarfile.FilterError) as error:
        raise UserError(f"{archive}: refused: {error}") from None
    except (*DAMAGED, OSError) as error:
        # bzip2 raises an OSError without a number, and a place before the file's beginning is an "invalid argument";
        # all else is the disk's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        text = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise Damaged(f"{archive}: damaged, or no zip or tar archive ({text}); fetch it again") from None


class _Bounds:
    """What all of an archive may hold, archives inside included."""

    def __init__(self, limit: int, free: int) -> None:
        self.limit, self.free = limit, free
        self.bytes = self.members = 0

    def count(self, size: int) -> None:
        self.members += 1
        self.bytes += size
        if size < 0:  # tar can write that; it would buy others room below the bound
            raise _Hostile(f"a member says it takes {size} bytes")
        if self.members > MAX_MEMBERS:
            raise _Hostile(f"more than {MAX_MEMBERS} members")
        if self.bytes > self.limit:
            raise _Hostile(f"unpacks to more than {self.limit / 1e6:.0f} MB, too much for it")
        if self.bytes > self.free:
            raise _Hostile(f"unpacks to more than the {self.free / 1e6:.0f} MB that are free")


def _read(archive: Path, draft: Path, wanted: set[str], bounds: _Bounds, report: Report) -> None:
    """Write what is wanted of an archive to `draft`, as the archive names it; tars inside become folders."""
    size = archive.stat().st_size
    links: dict[str, str] = {}  # path in the archive → path in the archive that it points to
    with archive.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(archive) as content:
            for info in content.infolist():
                bounds.count(info.file_size)
                _check_name(info.orig_filename)  # `filename` is cut at the first NUL
                if info.flag_bits & 1:
                    raise _Hostile(f"its member {info.filename!r} is encrypted")
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _Hostile(f"its member {info.filename!r} is neither file nor folder")
                if _is_wanted(info.filename, wanted):
                    _check_new(draft, info.filename, info.is_dir())
                    content.extract(info, draft)
                    report(min(content.fp.tell(), size), size)  # type: ignore[union-attr]
    else:
        with archive.open("rb") as stream, tarfile.open(fileobj=stream, tarinfo=_Header) as tar:
            for member in tar:
                bounds.count(member.size)
                _check_name(member.name)
                safe = tarfile.data_filter(member, str(draft))
                if member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers):
                    raise _Hostile(f"its member {member.name!r} is neither file, folder nor link")
                if _is_wanted(member.name, wanted):
                    _check_new(draft, member.name, member.isdir())
                    if member.issym() or member.islnk():
                        beside = posixpath.dirname(member.name) if member.issym() else ""
                        links[member.name] = posixpath.normpath(posixpath.join(beside, member.linkname))
                        if _leaves(links[member.name]):
                            raise _Hostile(f"its member {member.name!r} is a link out of the folder")
                    else:
                        tar.extract(safe, draft, filter="fully_trusted")  # filtered above
                tar.members = []  # type: ignore[attr-defined]  # else a list of all members grows
                report(min(stream.tell(), size), size)
            rest = 0
            while chunk := tar.fileobj.read(CHUNK):  # type: ignore[union-attr]  # to the end, where the checksum is
                rest += len(chunk)
                if rest > SMALL:
                    raise _Hostile(f"holds more than {SMALL / 1e6:.0f} MB behind its end")
        _copy_links(draft, links, bounds)
    for name in {name for name in map(_inner, wanted) if name and (draft / name).is_file()}:
        packed = (draft / name).rename(draft / f"{name}.packed")
        (draft / name).mkdir()
        inside = {member[len(name) + 1 :] for member in wanted if member.startswith(f"{name}/")}
        _read(packed, draft / name, inside, bounds, lambda done, total: None)
        packed.unlink()


class _Header(tarfile.TarInfo):
    """tarfile reads long names, attributes and maps of sparse files into memory whatever size they say: not here."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG_HEADERS and header.size > MAX_HEADER:
            raise _Hostile(f"a member's name or attributes take {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _Hostile(f"its member {header.name!r} is neither file, folder nor link")
        return header

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, *_: object) -> None:
        """The newer form's map stands in the data; tarfile would read it to the end."""
        raise _Hostile(f"its member {following.name!r} is neither file, folder nor link")


def _inner(member: str) -> str:
    """The path of the tar inside the archive that a wanted member stands in; "" where it stands in none."""
    parts = member.split("/")
    ends = [number for number, part in enumerate(parts[:-1], start=1) if part.lower().endswith(INNER)]
    return "/".join(parts[: ends[0]]) if ends else ""


def _is_wanted(name: str, wanted: set[str]) -> bool:
    path = os.path.normpath(name).replace("\\", "/")
    members = {_inner(member) or member for member in wanted}
    return any(member == "." or path == member or path.startswith(f"{member}/") for member in members)


def _leaves(name: str) -> bool:
    """Whether a name leads out of the folder, here or on Windows: the libraries would quietly make it a name inside."""
    parts = name.replace("\\", "/").split("/")
    # A drive counts in any part: to Windows, images/C:/x is a place on drive C, images/a:b a stream behind the file a.
    return not parts[0] or "\0" in name or ".." in parts or ":" in name


def _check_name(name: str) -> None:
    if _leaves(name):
        raise _Hostile(f"its member {name!r} would stand outside of the folder")
    parts = name.replace("\\", "/").split("/")
    if WINDOWS and any(p and (is_device(p) or p[-1] in ". " or set(p) & FORBIDDEN) for p in parts if p != "."):
        raise _Hostile(f"its member {name!r} has a name that Windows does not take for a file's")


def _check_new(draft: Path, name: str, is_folder: bool) -> None:
    """Nothing is written over, and no file is taken for a folder."""
    path = draft / name
    above = [draft.joinpath(*Path(name).parts[:n]) for n in range(1, len(Path(name).parts))]
    if (path.exists() and not (is_folder and path.is_dir())) or any(folder.is_file() for folder in above):
        raise _Hostile(f"its member {name!r} stands there twice")


def _copy_links(draft: Path, links: dict[str, str], bounds: _Bounds) -> None:
    """Links become copies of the files they point to: nothing is ever written that points anywhere."""
    for _ in range(MAX_HOPS):  # from link to link
        for name, target in list(links.items()):
            if (draft / target).is_file():
                bounds.count((draft / target).stat().st_size)
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(draft / target, draft / name)
                del links[name]
        if not links:
            return
    name, target = next(iter(links.items()))
    raise _Hostile(f"its member {name!r} is a link to {target!r}, which is no file that is unpacked with it")
