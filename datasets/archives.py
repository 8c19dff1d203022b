"""Unpacking archives that came from the net: zip and tar, packed or not, and a tar inside either.

An archive is data of a stranger. Only files and folders with names inside the folder are written, by this module itself
and only those that are asked for; how many members there are, and what they unpack to, is bounded. All of it goes into
a folder beside the target and is moved into place when it is complete.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import EINVAL, ENAMETOOLONG
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from bench.errors import WINDOWS, UserError
from bench.files import is_device

MAX_MEMBERS = 1_000_000  # SUN397, the largest, has a hundred thousand
MAX_GROWTH = 20  # unpacked size over the archive's: images hardly shrink, lists of names do, by 5 to 10
SMALL = 100_000_000  # bytes any archive may unpack to, however small it is
MAX_HEADER = 1_000_000  # bytes of a tar member's long name or attributes, which tarfile holds in memory
CHUNK = 1 << 20
INNER = (".tar", ".tar.gz", ".tgz")  # what a tar inside an archive is called
FORBIDDEN = frozenset('<>"|?*').union(map(chr, range(32)))  # in a file's name on Windows; it would drop the last dot
LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
ProgressCallback = Callable[[int, int], None]  # (bytes of the archive that are read, its size)


class Damaged(UserError):
    """What no archive is, or no whole one: fetching it again may help."""


class _Hostile(Exception):
    """What no archive of images has."""


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    unfit: str  # why it is not unpacked; "" of files and folders
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    folder: Path,
    wanted: Mapping[str, str],
    report: ProgressCallback = lambda done, total: None,
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
    the folder, more than can be meant; or among what is wanted links, devices, encrypted or double members.
    """
    draft = draft or folder / f".{archive.name}.unpack"
    for target in wanted.values():
        if there(folder / target):
            raise UserError(f"{folder / target}: is there already and is not overwritten; move it away")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        bounds = _Bounds(max(SMALL, MAX_GROWTH * archive.stat().st_size), shutil.disk_usage(draft).free)
        with _told(archive):
            _read(archive, draft, set(wanted), bounds, report)
        for member in wanted:
            if not (draft / member).exists():
                raise UserError(f"{archive}: holds no {member!r}; is it the right archive?")
        for member, target in sorted(wanted.items(), reverse=True):  # a member inside another one goes first
            place = folder / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                place.rmdir()  # fails where it is not empty by now
            os.rename(draft / member, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def there(path: Path) -> bool:
    """Whether a path exists; an empty folder does not count."""
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return os.path.lexists(path)


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """Errors of the libraries in one line that names the archive."""
    try:
        yield
    except _Hostile as error:
        raise UserError(f"{archive}: refused: {error}") from None
    except Exception as error:  # tarfile and zipfile parse bytes without looking at each first: of any kind
        # bzip2 raises an OSError without a number, and a place before the file's beginning is an "invalid argument";
        # all else is the disk's.
        if isinstance(error, OSError) and error.errno not in (None, EINVAL):
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


def _read(archive: Path, draft: Path, wanted: set[str], bounds: _Bounds, report: ProgressCallback) -> None:
    """Write what is wanted of an archive to `draft`, as the archive names it; tars inside become folders."""
    inner = {_inner(member) for member in wanted}
    outer = {_inner(member) or member for member in wanted}
    with archive.open("rb") as stream:
        members = _zip_members if stream.read(2) == b"PK" else _tar_members
        stream.seek(0)
        for member in members(stream):
            bounds.count(member.size)
            path = _checked_path(member.name)
            if any(one == "." or path == one or path.startswith(f"{one}/") for one in outer):
                if member.unfit:
                    raise _Hostile(f"its member {member.name!r} is {member.unfit}")
                _write(member, draft / path)
            report(min(stream.tell(), archive.stat().st_size), archive.stat().st_size)
    for name in inner:
        if name and (draft / name).is_file():
            packed = (draft / name).rename(draft / f"{name}.packed")
            (draft / name).mkdir()
            inside = {member[len(name) + 1 :] for member in wanted if member.startswith(f"{name}/")}
            _read(packed, draft / name, inside, bounds, lambda done, total: None)
            packed.unlink()


def _write(member: _Member, path: Path) -> None:
    try:
        (path if member.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        if not member.is_folder:
            with member.open() as source, path.open("xb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
    except (FileExistsError, NotADirectoryError):  # nothing is written over, and no file is taken for a folder
        raise _Hostile(f"its member {member.name!r} stands there twice") from None
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            raise
        raise _Hostile(f"its member '{member.name[:80]}…' has a longer name than a disk takes") from None


def _zip_members(stream: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(stream) as content:
        for info in content.infolist():
            plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            unfit = "encrypted" if info.flag_bits & 1 else "" if plain else "neither file nor folder"
            # `filename` is cut at the first NUL
            yield _Member(info.orig_filename, info.file_size, info.is_dir(), unfit, partial(content.open, info))


def _tar_members(stream: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, tarinfo=_Header) as tar:
        for member in tar:
            sparse = member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers)
            unfit = "" if (member.isreg() and not sparse) or member.isdir() else "neither file nor folder"
            unfit = f"a link to {member.linkname!r}" if member.issym() or member.islnk() else unfit
            yield _Member(member.name, member.size, member.isdir(), unfit, partial(tar.extractfile, member))  # type: ignore[arg-type]
            tar.members = []  # type: ignore[attr-defined]  # else a list of all members grows
        while tar.fileobj.read(CHUNK):  # type: ignore[union-attr]  # to the end, where the checksum is
            pass


class _Header(tarfile.TarInfo):
    """tarfile reads long names, attributes and maps of sparse files into memory whatever size they say: not here."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG_HEADERS and header.size > MAX_HEADER:
            raise _Hostile(f"a member's name or attributes take {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _Hostile(f"its member {header.name!r} is neither file nor folder")
        return header

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, *_: object) -> None:
        """The newer form's map is in the data; tarfile would read it to the end."""
        raise _Hostile(f"its member {following.name!r} is neither file nor folder")


def _inner(member: str) -> str:
    """The path of the tar inside the archive that holds a wanted member; "" where none does."""
    parts = member.split("/")
    ends = [number for number, part in enumerate(parts[:-1], start=1) if part.lower().endswith(INNER)]
    return "/".join(parts[: ends[0]]) if ends else ""


def _checked_path(name: str) -> str:
    """A member's name as a path with "/", refused where it leads out of the folder, here or on Windows."""
    parts = name.replace("\\", "/").split("/")
    # A drive counts in any part: to Windows, images/C:/x is a place on drive C, images/a:b a stream behind the file a.
    if not parts[0] or "\0" in name or ".." in parts or ":" in name:
        raise _Hostile(f"its member {name!r} would stand outside of the folder")
    if WINDOWS and any(p and (is_device(p) or p[-1] in ". " or set(p) & FORBIDDEN) for p in parts if p != "."):
        raise _Hostile(f"its member {name!r} has a name that Windows does not take for a file's")
    return posixpath.normpath("/".join(parts))
