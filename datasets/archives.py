"""Unpacking archives that came from the net: zip, tar and tar.gz, and a tar inside a zip.

An archive is data of a stranger. So nothing is handed to an `extractall`: every member is looked at, and one that is
hostile refuses the whole archive. Only what is asked for is written, with the user's own permissions, into a folder
beside the target; it is moved into place when all of it is there.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from bench.errors import WINDOWS, UserError
from bench.files import is_device

MAX_MEMBERS = 1_000_000  # SUN397, the largest, has a hundred thousand
MAX_GROWTH = 20  # unpacked size over the archive's: images hardly shrink, lists of names do, by 5 to 10
SMALL = 100_000_000  # bytes any archive may unpack to, however small it is
MAX_RATIO = 200  # of one member of a zip
MAX_HEADER = 1_000_000  # bytes of a tar member's long name or attributes, which tarfile holds in memory
MAX_LIST = 100_000_000  # bytes of a zip's list of members, which zipfile holds in memory
MAX_HOPS = 40  # links from link to link, as in Linux
CHUNK = 1 << 20
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


class Damaged(UserError):
    """What no archive is, or no whole one: fetching it again may help."""


Report = Callable[[int, int], None]  # (bytes of the archive that are read, its size)


def unpack(archive: Path, folder: Path, wanted: Mapping[str, str], report: Report = lambda done, total: None) -> None:
    """Take members of an archive into a folder, each whole or not at all; what is there is never touched.

    Parameters
    ----------
    wanted : member (a file or a folder with all below it; "." for everything) → where it goes, relative to `folder`.
        A member of a tar inside the archive is named "outer/inner.tar.gz/member".
    report : called now and then with the bytes read and the bytes there are.

    Raises UserError where the archive is damaged, lacks a wanted member, or holds anything hostile: names outside
    the folder, links that leave it, devices, members that stand twice, encryption, more than can be meant.
    """
    draft = draft_of(archive, folder)
    for target in wanted.values():
        if there(folder / target):
            raise UserError(f"{folder / target}: is there already and is not overwritten; move it away")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        size = archive.stat().st_size
        limit = max(SMALL, MAX_GROWTH * size)
        work = _Unpacking(str(archive), draft, limit, shutil.disk_usage(draft).free)
        with archive.open("rb") as stream:
            work.read(stream, wanted, lambda: report(min(stream.tell(), size), size))
        for member, target in wanted.items():
            if not os.path.lexists(draft / target):
                raise UserError(f"{archive}: holds no {member!r}; is it the right archive?")
        for target in wanted.values():
            _move(draft / target, folder / target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def draft_of(archive: Path, folder: Path) -> Path:
    """Where an archive is unpacked to first: always the same name, so that what a killed run left is cleared away."""
    return folder / f".{archive.name}.unpack"


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


# Members -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """What zip and tar say of one member, in common words."""

    name: str
    kind: str  # "file", "folder", "link" (target as seen from its own folder) or "hard link" (from the archive's root)
    size: int = 0  # bytes, as the archive says
    target: str = ""  # of links
    open: Callable[[], IO[bytes]] | None = None
    info: tarfile.TarInfo | None = None  # of a tar


class _Unpacking:
    """One archive on its way into a folder, with the bounds that hold for all of it, archives inside included."""

    def __init__(self, archive: str, draft: Path, limit: int, free: int) -> None:
        self.archive, self.draft, self.limit, self.free = archive, draft, limit, free
        self.bytes = self.members = 0

    def read(self, stream: Any, wanted: Mapping[str, str], report: Callable[[], None]) -> None:
        """Write what is wanted of an archive, given as a stream at its beginning."""
        written: dict[str, Path] = {}  # path in the archive → file
        links: dict[str, tuple[str, Path]] = {}  # path in the archive → (path it points to, file)
        try:
            for member in _members(stream, self.archive):
                path = self._path(member.name)
                self._second_opinion(member)
                self._count(member.size)
                if member.kind.endswith("link"):
                    base = path.rpartition("/")[0] if member.kind == "link" else ""
                    target = self._target(member, base)
                    self._place(path, wanted, lambda file, p=path, t=target: links.update({p: (t, file)}))  # type: ignore[misc]
                elif member.kind == "folder":
                    self._place(path, wanted, lambda file: file.mkdir(parents=True, exist_ok=True))
                else:
                    assert member.open is not None
                    inner = {w[len(path) + 1 :]: t for w, t in wanted.items() if w.startswith(f"{path}/")}
                    if inner:
                        self.read(member.open(), inner, report)
                    else:
                        self._place(path, wanted, lambda file, m=member, p=path: self._write(m, p, file, written))  # type: ignore[misc]
                report()
        except _Hostile as error:
            raise UserError(f"{self.archive}: refused: {error}") from None
        except DAMAGED as error:
            raise self._damaged(error) from None
        except OSError as error:
            # bzip2 raises it without a number, and a place before the file's beginning is an "invalid argument"; all
            # else is the disk's.
            if error.errno not in (None, errno.EINVAL):
                raise
            raise self._damaged(error) from None
        self._copy_links(links, written)

    def _damaged(self, error: Exception) -> Damaged:
        text = str(error) or type(error).__name__
        return Damaged(f"{self.archive}: damaged, or no zip or tar archive ({text}); fetch it again")

    def _place(self, path: str, wanted: Mapping[str, str], put: Callable[[Path], object]) -> None:
        """`put(file)` where a member is wanted."""
        for member, target in wanted.items():
            if member == "." or path == member or path.startswith(f"{member}/"):
                file = self.draft / target / (path if member == "." else path[len(member) + 1 :])
                try:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    put(file)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    raise self._refused(path, "stands there twice") from None

    def _write(self, member: _Member, path: str, file: Path, written: dict[str, Path]) -> None:
        assert member.open is not None
        # "x": a name that exists is not written over. Both libraries read as many bytes as the member says, or raise.
        with member.open() as source, open(file, "xb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
        written[path] = file

    def _copy_links(self, links: dict[str, tuple[str, Path]], written: dict[str, Path]) -> None:
        """Links become copies of what they point to: nothing is ever written that points anywhere."""
        for path, (target, file) in links.items():
            end = target
            for _ in range(MAX_HOPS):  # bounded: following a chain of n links from each of them would take n * n steps
                if end not in links:
                    break
                end = links[end][0]
            if end in links or end not in written:
                raise self._refused(path, f"is a link to {target!r}, which is no file that is unpacked with it")
            self._count(written[end].stat().st_size)
            if os.path.lexists(file):
                raise self._refused(path, "stands there twice")
            shutil.copyfile(written[end], file)

    def _count(self, size: int) -> None:
        if size < 0:  # tar can write that; it would buy others room below the bound
            raise UserError(f"{self.archive}: refused: a member says it takes {size} bytes")
        self.members += 1
        self.bytes += size
        if self.members > MAX_MEMBERS:
            raise UserError(f"{self.archive}: refused: {_too_many()}")
        if self.bytes > self.limit:
            raise UserError(f"{self.archive}: refused: unpacks to more than {self.limit / 1e6:.0f} MB, too much for it")
        if self.bytes > self.free:
            raise UserError(f"{self.archive}: unpacks to more than the {self.free / 1e6:.0f} MB that are free")

    def _path(self, name: str) -> str:
        """A member's path with "/" between its parts; one that could lead elsewhere is refused."""
        path = name.replace("\\", "/")  # judged as Windows would read it, too
        parts = [part for part in path.split("/") if part not in ("", ".")]
        # A drive counts in any part: to Windows, images/C:/x and even images/C:x are places on drive C, and images/a:b
        # is a stream behind the file a.
        if "\0" in name or path.startswith("/") or ".." in parts or any(":" in part for part in parts):
            raise self._refused(name, "would stand outside of the folder")
        if WINDOWS and any(is_device(part) or part[-1] in ". " or set(part) & FORBIDDEN for part in parts):
            raise self._refused(name, "has a name that Windows does not take for a file's")
        return "/".join(parts)

    def _second_opinion(self, member: _Member) -> None:
        """Python's own filter for tar members, where this Python has it (from 3.10.12, 3.11.4 on)."""
        if member.info is not None and hasattr(tarfile, "data_filter"):
            try:
                tarfile.data_filter(member.info, str(self.draft))
            except tarfile.FilterError as error:
                raise self._refused(member.name, f"is not safe ({error})") from None

    def _target(self, member: _Member, base: str) -> str:
        """The path in the archive a link points to."""
        target = member.target.replace("\\", "/")
        parts = base.split("/") if base else []
        for part in target.split("/"):
            if part == ".." and parts:
                parts.pop()
            elif part == ".." or "\0" in part:
                raise self._refused(member.name, f"is a link out of the folder, to {member.target!r}")
            elif part not in ("", "."):
                parts.append(part)
        if target.startswith("/") or ":" in target:
            raise self._refused(member.name, f"is a link out of the folder, to {member.target!r}")
        return "/".join(parts)

    def _refused(self, name: str, why: str) -> UserError:
        return UserError(f"{self.archive}: refused: its member {name!r} {why}")


# The formats -------------------------------------------------------------------------------------------------


def _members(stream: Any, archive: str) -> Iterator[_Member]:
    """Zip, tar or gzip'ed tar, by the first bytes; a zip must be a file, a tar may be any stream."""
    head = _Peek(stream)
    if head.start.startswith(b"PK"):
        if not isinstance(getattr(stream, "raw", None), io.FileIO):
            raise UserError(f"{archive}: a zip inside an archive is not unpacked")
        stream.seek(0)
        yield from _zip_members(stream, archive)
    elif head.start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=head, mode="rb") as plain:  # type: ignore[call-overload]
            yield from _tar_members(plain, archive)
            rest = 0
            while chunk := plain.read(CHUNK):  # to the end, where gzip's checksum is compared
                rest += len(chunk)
                if rest > SMALL:
                    raise UserError(f"{archive}: refused: holds more than {SMALL / 1e6:.0f} MB behind its end")
    else:
        yield from _tar_members(head, archive)


class _Peek:
    """A stream whose first bytes have been looked at."""

    def __init__(self, stream: Any) -> None:
        self.start = self._left = stream.read(4)
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            return bytes(self._stream.read(size))
        first, self._left = (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
        return first


def _too_many() -> str:
    return f"more than {MAX_MEMBERS} members"


class _Entries(list[zipfile.ZipInfo]):
    """A zip's list of members, which zipfile builds whatever length it has."""

    def append(self, info: zipfile.ZipInfo) -> None:
        if len(self) >= MAX_MEMBERS:
            raise _Hostile(_too_many())
        super().append(info)


class _ZipFile(zipfile.ZipFile):
    def _RealGetContents(self) -> None:
        self.filelist = _Entries()
        super()._RealGetContents()  # type: ignore[misc]


class _ZipStream:
    """A zip's file for zipfile, which would read the list of members in one piece, however large it says it is."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size > MAX_LIST:
            raise _Hostile(f"its list of members takes {size} bytes")
        return bytes(self._stream.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _zip_members(stream: Any, archive: str) -> Iterator[_Member]:
    with _ZipFile(_ZipStream(stream)) as content:  # type: ignore[call-overload]
        for info in content.infolist():
            name = info.orig_filename  # `filename` is cut at the first NUL
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was not made on Unix
            if info.flag_bits & 1:
                raise UserError(f"{archive}: refused: its member {name!r} is encrypted")
            if info.file_size > max(SMALL / 10, MAX_RATIO * info.compress_size):
                raise UserError(f"{archive}: refused: its member {name!r} would grow {MAX_RATIO} times and more")
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise UserError(f"{archive}: refused: its member {name!r} is neither file, folder nor link")
            if mode == stat.S_IFLNK:
                if info.file_size > 4096:
                    raise UserError(f"{archive}: refused: its member {name!r} is a link of {info.file_size} bytes")
                yield _Member(name, "link", target=content.read(info).decode("utf-8", "surrogateescape"))
            elif info.is_dir() or mode == stat.S_IFDIR:
                yield _Member(name, "folder")
            else:
                yield _Member(name, "file", info.file_size, open=partial(content.open, info))


class _Hostile(Exception):
    """What no archive of images has; raised where a library calls back."""


class _Header(tarfile.TarInfo):
    """tarfile reads long names, attributes and maps of sparse files into memory whatever size they say: not here."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG_HEADERS and header.size > MAX_HEADER:
            raise _Hostile(f"a member's name or attributes take {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _irregular(header.name)
        return header

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, *_: object) -> None:
        """The newer form's map stands in the data; tarfile would read it to the end."""
        raise _irregular(following.name)


def _irregular(name: str) -> _Hostile:
    return _Hostile(f"its member {name!r} is neither file, folder nor link")


def _tar_members(stream: Any, archive: str) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as content:
        for member in content:
            if member.isdir():
                yield _Member(member.name, "folder", info=member)
            elif member.issym():
                yield _Member(member.name, "link", target=member.linkname, info=member)
            elif member.islnk():
                yield _Member(member.name, "hard link", target=member.linkname, info=member)
            elif not member.isreg() or member.issparse() or any(k.startswith("GNU.sparse") for k in member.pax_headers):
                raise _irregular(member.name)
            else:
                extract = partial(content.extractfile, member)
                yield _Member(member.name, "file", member.size, open=extract, info=member)  # type: ignore[arg-type]
            content.members = []  # type: ignore[attr-defined]  # else a list of all members grows
