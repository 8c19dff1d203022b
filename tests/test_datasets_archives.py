"""Archives: the official forms come out whole, everything hostile is refused, and nothing half done stays."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import archives
from bench.datasets.archives import there, unpack
from bench.errors import UserError

Files = dict[str, bytes]
GOOD: Files = {"top/images/a/1.jpg": b"one", "top/images/b/2.jpg": b"two", "top/readme.txt": b"read me"}


def tar(file: Path, files: Files, mode: str = "w:gz", more: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    with tarfile.open(file, mode) as archive:
        for name, content in files.items():
            entry(archive, name, content)
        if more:
            more(archive)
    return file


def entry(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def zipped(file: Path, files: Files, more: Callable[[zipfile.ZipFile], None] | None = None) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if more:
            more(archive)
    return file


def found(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if not f.is_dir()}


def refused(archive: Path, said: str, wanted: dict[str, str] | None = None) -> None:
    """It is refused in one line that names it, and no file is left of it, neither in the folder nor around it."""
    before = found(archive.parent)
    with pytest.raises(UserError) as caught:
        unpack(archive, archive.parent / "task", wanted or {"top/images": "images"})
    assert said in str(caught.value) and str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert found(archive.parent) == before
    assert not list((archive.parent / "task").iterdir())


# What official archives look like -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.zip"])
def test_folders_and_files_go_where_they_are_wanted_and_nothing_else_is_written(tmp_path: Path, name: str) -> None:
    make = zipped if name.endswith("zip") else tar
    files = {**GOOD, "./top/lists/train.txt": b"1", "top/imagesX/no.jpg": b"no"}
    archive = make(tmp_path / name, files, *(["w"] if name == "x.tar" else []))  # type: ignore[arg-type]
    unpack(archive, tmp_path / "task", {"top/images": "sub/images", "top/lists/train.txt": "train.txt"})
    wanted = {"sub/images/a/1.jpg": b"one", "sub/images/b/2.jpg": b"two", "train.txt": b"1"}
    assert found(tmp_path / "task") == wanted
    assert archive.is_file()


def test_a_tar_inside_a_zip_as_caltech101_has_it(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar.gz", {"101/a/1.jpg": b"one", "101/b/2.jpg": b"two", "other/x": b"x"})
    files = {"c/101.tar.gz": inner.read_bytes(), "c/Annotations.tar": b"not looked at"}
    unpack(zipped(tmp_path / "c.zip", files), tmp_path / "task", {"c/101.tar.gz/101": "images"})
    assert found(tmp_path / "task") == {"images/a/1.jpg": b"one", "images/b/2.jpg": b"two"}


def test_everything_of_an_archive_without_a_top_folder(tmp_path: Path) -> None:
    unpack(zipped(tmp_path / "x.zip", {"a/1.jpg": b"one", "b/2.jpg": b"two"}), tmp_path / "task", {".": "images"})
    assert found(tmp_path / "task") == {"images/a/1.jpg": b"one", "images/b/2.jpg": b"two"}


def test_a_member_inside_another_one_goes_to_its_own_place(tmp_path: Path) -> None:
    wanted = {"top": "all", "top/readme.txt": "readme.txt"}
    unpack(tar(tmp_path / "x.tgz", GOOD), tmp_path / "task", wanted)
    rest = {"all/images/a/1.jpg": b"one", "all/images/b/2.jpg": b"two"}
    assert found(tmp_path / "task") == {**rest, "readme.txt": b"read me"}


def test_links_among_what_is_wanted_are_refused_and_elsewhere_left_alone(tmp_path: Path) -> None:
    """No official archive has any."""

    def link(archive: tarfile.TarFile, kind: bytes = tarfile.SYMTYPE) -> None:
        entry(archive, "top/images/c/3.jpg", type=kind, linkname="../a/1.jpg")

    refused(tar(tmp_path / "x.tgz", GOOD, more=link), "its member 'top/images/c/3.jpg' is a link to '../a/1.jpg'")
    unpack(tmp_path / "x.tgz", tmp_path / "task", {"top/readme.txt": "readme.txt"})
    assert found(tmp_path / "task") == {"readme.txt": b"read me"}


def test_permissions_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar", {}, "w", lambda a: entry(a, "top/images/a", b"#!", mode=0o6777))
    unpack(archive, tmp_path / "task", {"top/images": "images"})
    assert (tmp_path / "task/images/a").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH) == 0


def test_reports_how_far_it_is(tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar", {f"top/images/{n}": os.urandom(20_000) for n in range(20)}, "w")
    calls: list[tuple[int, int]] = []
    unpack(archive, tmp_path / "task", {"top/images": "images"}, lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert {total for _, total in calls} == {archive.stat().st_size} and calls[-1][0] > 0.9 * archive.stat().st_size


# Nothing half done, nothing overwritten -----------------------------------------------------------------------


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "task" / "images").mkdir(parents=True)
    (tmp_path / "task" / "images" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="images: is there already and is not overwritten"):
        unpack(tar(tmp_path / "x.tgz", GOOD), tmp_path / "task", {"top/images": "images"})
    assert found(tmp_path / "task") == {"images/mine.jpg": b"mine"}


def test_an_empty_folder_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "task" / "images").mkdir(parents=True)
    assert not there(tmp_path / "task" / "images")
    unpack(tar(tmp_path / "x.tgz", GOOD), tmp_path / "task", {"top/images": "images"})
    assert there(tmp_path / "task" / "images") and len(found(tmp_path / "task")) == 2


def test_stopped_at_any_file_leaves_nothing_and_a_kill_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tar(tmp_path / "x.tgz", GOOD)
    original = shutil.copyfileobj

    def stop_at(file: str) -> None:
        def copy(source: Any, sink: Any, *rest: Any) -> None:
            original(source, sink, *rest)
            if file and sink.name.endswith(file):
                raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "copyfileobj", copy)

    for file in ("top/images/a/1.jpg", "top/images/b/2.jpg"):
        stop_at(file)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, tmp_path / "task", {"top/images": "images"})
        assert not list((tmp_path / "task").iterdir())
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):  # nobody clears away behind a kill
            killed.setattr(shutil, "rmtree", lambda *_, **__: None)
            unpack(archive, tmp_path / "task", {"top/images": "images"})
        assert found(tmp_path / "task") and not (tmp_path / "task" / "images").exists()
        stop_at("")
        unpack(archive, tmp_path / "task", {"top/images": "images"})
        assert found(tmp_path / "task") == {"images/a/1.jpg": b"one", "images/b/2.jpg": b"two"}
        shutil.rmtree(tmp_path / "task")


# Hostile archives ---------------------------------------------------------------------------------------------

OUTSIDE = ["../evil", "top/../../evil", "/evil", "C:/evil", "top\\..\\..\\evil", "c:evil", "top/images/../../x"]
OUTSIDE += ["top/images/C:/evil", "./C:/evil", "top/images/C:evil", "top/images/file:stream"]  # to Windows


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_outside_the_folder(tmp_path: Path, name: str) -> None:
    refused(tar(tmp_path / "x.tar.gz", {**GOOD, name: b"evil"}), "would stand outside")
    refused(zipped(tmp_path / "x.zip", {**GOOD, name: b"evil"}), "would stand outside")


def test_a_name_with_nul(tmp_path: Path) -> None:
    file = zipped(tmp_path / "x.zip", {**GOOD, "top/images/aXb.jpg": b"evil"})
    file.write_bytes(file.read_bytes().replace(b"aXb.jpg", b"a\0b.jpg"))
    refused(file, "would stand outside")
    headers = {"path": "top/images/a\0b.jpg"}
    refused(
        tar(tmp_path / "x.tar", GOOD, "w", lambda a: entry(a, "short", b"x", pax_headers=headers)),
        "would stand outside",
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../etc/passwd", "C:\\secret", "..\\..\\..\\secret", "./C:/secret"]
)
def test_links_out_of_the_folder(tmp_path: Path, kind: bytes, target: str) -> None:
    def link(archive: tarfile.TarFile) -> None:
        entry(archive, "top/images/link", type=kind, linkname=target)

    refused(tar(tmp_path / "x.tar.gz", GOOD, more=link), "'top/images/link'")


def test_links_out_of_the_folder_in_a_zip(tmp_path: Path) -> None:
    def link(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("top/images/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../../etc/passwd")

    refused(zipped(tmp_path / "x.zip", GOOD, link), "is neither file nor folder")


def test_a_file_that_goes_through_a_link(tmp_path: Path) -> None:
    def through(archive: tarfile.TarFile) -> None:
        entry(archive, "top/images/door", type=tarfile.SYMTYPE, linkname="a")
        entry(archive, "top/images/door/3.jpg", b"evil")

    refused(tar(tmp_path / "x.tar.gz", GOOD, more=through), "'top/images/door'")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes(tmp_path: Path, kind: bytes) -> None:
    refused(tar(tmp_path / "x.tar.gz", GOOD, more=lambda a: entry(a, "top/images/dev", type=kind)), "'top/images/dev'")


def test_a_device_in_a_zip(tmp_path: Path) -> None:
    def device(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("top/images/dev")
        info.external_attr = stat.S_IFCHR << 16
        archive.writestr(info, "")

    refused(zipped(tmp_path / "x.zip", GOOD, device), "is neither file nor folder")


def test_sparse_members(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}
    headers["GNU.sparse.name"] = "top/images/huge"
    file = tar(tmp_path / "x.tar", GOOD, "w", lambda a: entry(a, "s", b"0\n".ljust(512, b"\0"), pax_headers=headers))
    refused(file, "is neither file nor folder")


def raw_header(name: str, kind: bytes, size: int = 0) -> bytearray:
    """A tar header with a checksum that is right, for what tarfile would not write."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return bytearray(info.tobuf(tarfile.GNU_FORMAT))


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_sparse_members_map_is_not_read(tmp_path: Path) -> None:
    """Both forms say "and the map goes on": tarfile would hold all of it, or fail at the end of the file."""
    old = raw_header("top/images/huge", tarfile.GNUTYPE_SPARSE)
    old[482] = 1  # the map goes on in the next block
    (tmp_path / "x.tar").write_bytes(with_checksum(old))  # and there the file ends
    refused(tmp_path / "x.tar", "is neither file nor folder")
    numbers = b"".join(b"%011o\0" % 1 for _ in range(42))
    block = numbers + b"\1" + bytes(512 - len(numbers) - 1)
    (tmp_path / "x.tgz").write_bytes(gzip.compress(with_checksum(old) + block * 20_000))
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    new = tar(tmp_path / "y.tgz", {}, "w:gz",
              lambda a: entry(a, "s", b"9999999\n" + b"1\n" * 2_000_000, pax_headers=headers))  # fmt: skip
    for file in (tmp_path / "x.tgz", new):
        tracemalloc.start()
        refused(file, "is neither file nor folder")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()


def test_a_size_below_zero_buys_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1_000_000)
    lies: tuple[dict[str, object], ...] = (
        {"pax_headers": {"GNU.sparse.realsize": "-9000000"}},
        {"pax_headers": {"size": "-1"}},
    )
    for fields, said in zip(lies, ("says it takes -9000000 bytes", "says it takes -1 bytes"), strict=True):

        def lie(archive: tarfile.TarFile, fields: dict[str, object] = fields) -> None:
            entry(archive, "top/images/lie", **fields)
            entry(archive, "top/images/huge", bytes(2_000_000))

        refused(tar(tmp_path / "x.tgz", GOOD, more=lie), said)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["aux.jpg", "Com1", "a./x.jpg", "a /x.jpg", "who?.jpg", 'a"b.jpg', "a\tb.jpg"])
def test_a_name_that_windows_would_take_for_another_is_refused_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device, an ending that is dropped, a letter that no file's name may have; elsewhere names like any other."""
    archive = tar(tmp_path / "x.tgz", {f"top/images/{name}": b"one"})
    unpack(archive, tmp_path / "elsewhere", {"top/images": "images"})
    assert found(tmp_path / "elsewhere") == {f"images/{name}": b"one"}
    monkeypatch.setattr(archives, "WINDOWS", True)
    refused(archive, "has a name that Windows does not take for a file's")


def test_a_member_that_stands_twice(tmp_path: Path) -> None:
    refused(
        tar(tmp_path / "x.tgz", GOOD, more=lambda a: entry(a, "top/./images/a/1.jpg", b"evil")), "stands there twice"
    )
    refused(zipped(tmp_path / "x.zip", GOOD, lambda a: a.writestr("top/images/a/1.jpg", "evil")), "stands there twice")
    refused(tar(tmp_path / "x.tgz", GOOD, more=lambda a: entry(a, "top/images/a", b"evil")), "stands there twice")
    refused(
        tar(tmp_path / "x.tgz", GOOD, more=lambda a: entry(a, "top/images/a/1.jpg/x", b"evil")), "stands there twice"
    )


def test_an_encrypted_zip(tmp_path: Path) -> None:
    file = zipped(tmp_path / "x.zip", GOOD)
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of members
    file.write_bytes(content)
    refused(file, "refused: its member 'top/images/a/1.jpg' is encrypted")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    unpack(zipped(tmp_path / "good.zip", GOOD), tmp_path / "good", {"top/images": "images"})
    refused(zipped(tmp_path / "x.zip", {**GOOD, "x": b""}), "more than 3 members")
    refused(tar(tmp_path / "x.tar", {**GOOD, "x": b""}, "w"), "more than 3 members")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1_000_000)
    zeros = bytes(2_000_000)
    refused(zipped(tmp_path / "x.zip", {**GOOD, "top/images/huge": zeros}), "unpacks to more than 1 MB")
    refused(tar(tmp_path / "x.tgz", {**GOOD, "top/images/huge": zeros}), "unpacks to more than 1 MB")
    refused(tar(tmp_path / "x.tgz", {**GOOD, "not/wanted": zeros}), "unpacks to more than 1 MB")
    many = {f"top/images/{n}": bytes(90_000) for n in range(20)}  # none is large, together they are
    refused(zipped(tmp_path / "x.zip", {**GOOD, **many}), "unpacks to more than 1 MB")
    inner = tar(tmp_path / "inner.tgz", {"101/huge": zeros}).read_bytes()  # small outside, a bomb inside
    refused(zipped(tmp_path / "x.zip", {"in.tgz": inner}), "unpacks to more than 1 MB", {"in.tgz/101": "images"})


def test_a_tars_long_name_is_not_read_into_memory(tmp_path: Path) -> None:
    """20 MB of zeros as a member's name: 20 kB of gzip."""
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
            entry(archive, "long", bytes(20_000_000), type=kind)
        tracemalloc.start()
        refused(tmp_path / "x.tgz", "name or attributes take 20000000 bytes")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


def test_more_than_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    refused(tar(tmp_path / "x.tgz", {**GOOD, "top/images/3": b"more than ten"}), "that are free")


# Damaged or other files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><p>Please log in", b"PK\x03\x04 and then nothing", b"\x1f\x8b"]
)
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", "fetch it again")


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    for make, name in ((tar, "x.tgz"), (zipped, "x.zip")):
        archive = make(tmp_path / name, {**GOOD, f"top/images/{'a' * 300}": b"x"})  # type: ignore[operator]
        refused(archive, "has a longer name than a disk takes")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_kinds_of_zip_members_that_are_damaged(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", kind) as archive:
        archive.writestr("top/images/a.jpg", os.urandom(2000))
    unpack(tmp_path / "x.zip", tmp_path / "good", {"top/images": "images"})
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60:90] = bytes(30)
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", "fetch it again")


def test_whatever_bit_is_wrong_the_error_is_one_line(tmp_path: Path) -> None:
    """tarfile and zipfile raise many kinds of errors on broken input."""

    def link(archive: tarfile.TarFile) -> None:
        entry(archive, "top/copy", type=tarfile.LNKTYPE, linkname="top/images/a/1.jpg")

    whole = {"x.tar": tar(tmp_path / "x.tar", GOOD, "w", link), "x.zip": zipped(tmp_path / "x.zip", GOOD)}
    for name, file in whole.items():
        content = file.read_bytes()
        places = range(0, min(len(content), 2048), 7)
        for place in places:
            broken = bytes([*content[:place], content[place] ^ 0xFF, *content[place + 1 :]])
            (tmp_path / f"broken-{name}").write_bytes(broken)
            try:
                unpack(tmp_path / f"broken-{name}", tmp_path / "task", {"top/images": "images"})
            except UserError as error:
                assert "\n" not in str(error)
            shutil.rmtree(tmp_path / "task", ignore_errors=True)


def test_archives_cut_off_or_with_a_flipped_bit(tmp_path: Path) -> None:
    files = {f"top/images/{n}.jpg": os.urandom(2000) for n in range(5)}
    for make, name in ((tar, "x.tgz"), (zipped, "x.zip")):
        whole = make(tmp_path / name, files).read_bytes()  # type: ignore[operator]
        for cut in (len(whole) // 2, len(whole) - 4):
            (tmp_path / name).write_bytes(whole[:cut])
            refused(tmp_path / name, "fetch it again")
        middle = len(whole) // 2
        (tmp_path / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :])
        refused(tmp_path / name, "fetch it again")


def test_the_wrong_archive_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    refused(tar(tmp_path / "x.tgz", GOOD), "holds no 'dtd/images'", {"top/images": "images", "dtd/images": "dtd"})


def test_a_zip_inside_a_tar_is_not_unpacked(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "in.zip", {"a/1.jpg": b"one"}).read_bytes()
    refused(tar(tmp_path / "x.tgz", {"in.zip": inner}), "holds no 'in.zip/a'", {"in.zip/a": "images"})
    refused(zipped(tmp_path / "x.zip", {"in.zip": inner}), "holds no 'in.zip/a'", {"in.zip/a": "images"})


@pytest.mark.parametrize("name", ["top/images/" + "a" * 300, "top/images" + "/a" * 4000])
def test_a_member_with_a_name_that_no_disk_takes_is_refused(name: str, tmp_path: Path) -> None:
    refused(zipped(tmp_path / "x.zip", GOOD, lambda a: a.writestr(name, "odd")), "longer name than a disk takes")
    refused(tar(tmp_path / "x.tgz", GOOD, more=lambda a: entry(a, name, b"odd")), "longer name than a disk takes")
