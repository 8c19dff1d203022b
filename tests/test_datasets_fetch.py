"""data fetch against a real HTTP server: what is planned, what goes over the wire, what is left when it fails."""

import errno
import hashlib
import io
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from bench.catalogue import fetch
from bench.cli import main
from bench.datasets import fetch as fetching
from bench.datasets import load_suite, load_tasks, transfer
from bench.datasets.check import check_suite
from bench.datasets.fetch import plan
from bench.errors import UserError
from bench.files import locked

sys.path.append(str(Path(__file__).parent))
from fileserver import CONTENT, Handler, Server, classes, names, server, targz, zipped

__all__ = ["server"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_cache(cache: Path) -> None:
    """Divisions and the like go to the test's own folder."""


def suite_file(folder: Path, *sources: str, more: str = "classes: 2, images: 10, ") -> str:
    """A suite of one task of class folders below images/ with these sources."""
    file = folder / "birds.yaml"
    task = "name: Birds, folder: birds, template: 'a {}.', task_name: birds, reader: {kind: folders, images: images}"
    file.write_text(f"tasks:\n  - {{{task}, {more}sources: [{', '.join(sources)}]}}\n", encoding="utf-8")
    return str(file)


def source(url: str, **keys: str) -> str:
    return "{url: '" + url + "', fetch: true" + "".join(f", {key}: {value}" for key, value in keys.items()) + "}"


def birds(server: Server, tmp_path: Path, **how: Any) -> str:
    """The suite file of an archive that the server holds."""
    content = targz(classes("birds-1.0/images"))
    url = server.put("birds.tar.gz", content, **how)
    md5 = hashlib.md5(content).hexdigest()  # noqa: S324 - MD5 as data sets publish it
    return suite_file(tmp_path, source(url, md5=md5, size="1 MB", unpack="{birds-1.0/images: images}"))


def states(table: Any) -> list[str]:
    return list(table["state"])


# From a server to a task --------------------------------------------------------------------------------------


def test_fetch_then_check_says_ready_and_the_tasks_load(server: Server, tmp_path: Path, capsys: Capture) -> None:
    """The forms of the official archives: tar.gz with a top folder, a tar.gz inside a zip, single files, zip lists."""
    caltech = {
        "caltech-101/101_ObjectCategories.tar.gz": targz(classes("101_ObjectCategories")),
        "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"\0",
        "caltech-101/Annotations.tar": b"not looked at",
    }
    pets = {"annotations/trainval.txt": b"", "annotations/test.txt": b"", "annotations/README": b"read me"}
    rows = [f"{breed}_{n} {label} 1 1" for label, breed in ((1, "Bengal"), (2, "boxer")) for n in range(1, 6)]
    pets["annotations/trainval.txt"] = pets["annotations/test.txt"] = "\n".join(rows).encode()
    pets["annotations/test.txt"] = b"Bengal_9 1 1 1\nboxer_9 2 1 1\n"
    photos = {f"images/{breed}_{n}.jpg": b"x" for breed in ("Bengal", "boxer") for n in (*range(1, 6), 9)}
    aircraft = {f"fgvc/data/images_variant_{part}.txt": f"{n} A310\n{n + 1} DC-3\n".encode()
                for n, part in ((1, "train"), (3, "val"), (5, "test"))}  # fmt: skip
    aircraft |= {f"fgvc/data/images/{n}.jpg": b"x" for n in range(1, 7)}
    aircraft |= {"fgvc/data/variants.txt": b"A310\nDC-3\n", "fgvc/vgg/tool.m": b"not wanted"}
    urls = {
        "caltech": server.put("caltech-101.zip", zipped(caltech)),
        "images": server.put("images.tar.gz", targz(photos)),
        "annotations": server.put("annotations.tar.gz", targz(pets)),
        "fgvc": server.put("aircraft/fgvc.tar.gz", targz(aircraft)),
    }
    lists = ", ".join(
        f"fgvc/data/images_variant_{part}.txt: images_variant_{part}.txt" for part in ("train", "val", "test")
    )
    (tmp_path / "small.yaml").write_text(f"""
defaults: {{template: "a {{}}.", task_name: things}}
tasks:
  - name: Caltech
    reader: {{kind: folders, images: 101_ObjectCategories}}
    classes: 2
    images: 10
    sources:
      - url: https://example.org/record
        fetch: {urls["caltech"]}
        unpack: {{caltech-101/101_ObjectCategories.tar.gz/101_ObjectCategories: 101_ObjectCategories}}
  - name: Pets
    reader: {{kind: pets}}
    classes: 2
    images: 12
    sources:
      - {{url: "{urls["images"]}", fetch: true, unpack: {{images: images}}}}
      - {{url: "{urls["annotations"]}", fetch: true, unpack: {{annotations: annotations}}}}
  - name: Aircraft
    reader: {{kind: fgvc}}
    classes: 2
    sources:
      - url: {urls["fgvc"]}
        fetch: true
        unpack: {{fgvc/data/images: images, fgvc/data/variants.txt: variants.txt, {lists}}}
""")
    root = tmp_path / "data" / "sets"  # not there yet
    command = ["data", "fetch", "--suite", str(tmp_path / "small.yaml"), "--data", str(root)]
    assert main([*command, "--yes"]) == 0
    assert "fetched: 4, failed: 0" in capsys.readouterr().out
    suite = load_suite(str(tmp_path / "small.yaml"))
    table = check_suite(suite, root)
    assert list(table["state"]) == ["ready"] * 3 and list(table["next"]) == [""] * 3
    assert list(table["images"]) == [10, 12, 6]
    assert [task.class_names for task in load_tasks(suite, root)] == [
        ("crow", "wren"),
        ("bengal", "boxer"),
        ("A310", "DC-3"),
    ]
    assert names(root / "Caltech") == ["101_ObjectCategories"]  # no archives, no notes
    assert names(root / "Pets") == ["annotations", "images"]
    assert names(root / "Aircraft") == sorted(["images", "variants.txt", *(f"images_variant_{p}.txt" for p in
                                               ("train", "val", "test"))])  # fmt: skip
    asked = len(server.requests)
    assert main([*command, "--yes"]) == 0  # nothing is done twice
    assert len(server.requests) == asked == 4
    assert "Nothing is left to download; 4 of 4 are there." in capsys.readouterr().out


def test_a_plan_comes_first_and_without_yes_nothing_is_downloaded(
    server: Server, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.put("birds.zip")
    by_hand = "{what: all.rar, url: 'https://example.org/share', size: 2 GB, licence: ask}"
    split = "{what: split_zhou_Birds.json, url: 'https://example.org/split'}"
    what = "{url: '" + url + "', fetch: true, size: 600 MB, licence: CC0, unpack: {.: images}}"
    suite = suite_file(tmp_path, what, by_hand, split)
    command = ["data", "fetch", "--suite", suite, "--data", str(tmp_path / "root")]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # no terminal
    assert main(command) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if "birds.zip" in line)
    assert all(word in row for word in ("Birds", "600 MB", "CC0", "none known", "to download"))
    assert f"By hand, into {tmp_path}/root/birds:" in shown
    assert "- all.rar (2 GB, licence: ask): https://example.org/share" in shown
    assert "split_*.json are CoOp's divisions" in shown
    assert "To download: 1 file, 600 MB" in shown and "1.2 GB are needed" in shown
    assert "add --yes" in shown
    assert main([*command, "--yes", "--dry-run"]) == 0
    assert server.requests == [] and not (tmp_path / "root").exists()


@pytest.mark.parametrize(("answer", "state"), [("y", "fetched: 1"), ("n", ""), ("", ""), (None, "")])
def test_at_a_terminal_it_asks(
    server: Server, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, answer: str | None, state: str
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def typed(_: str) -> str:
        if answer is None:  # Ctrl-D
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", typed)
    assert main(["data", "fetch", "--suite", birds(server, tmp_path), "--data", str(tmp_path / "root")]) == 0
    assert (tmp_path / "root").exists() == bool(server.requests) == bool(state)
    assert state in capsys.readouterr().out


def test_a_failure_stops_its_own_source_only(server: Server, tmp_path: Path, capsys: Capture) -> None:
    gone, lists = "http://127.0.0.1:9/refused.zip", server.put("lists.txt", b"a list")
    suite = suite_file(tmp_path, source(server.put("no.zip", status=404)), source(gone), source(lists))
    assert main(["data", "fetch", "--suite", suite, "--data", str(tmp_path / "root"), "--yes"]) == 1
    told = capsys.readouterr()
    assert [line.partition(":")[0] for line in told.err.splitlines()] == ["failed", "failed"]
    assert "no.zip: the server says 404" in told.err and "refused.zip: cannot be reached" in told.err
    assert "fetched: 1, failed: 2" in told.out
    assert names(tmp_path / "root" / "birds") == ["lists.txt"]


def test_a_length_no_file_has_stops_nothing(server: Server, tmp_path: Path) -> None:
    says = server.put("a.bin", says=-1, headers={"Content-Length": "9" * 5000})
    suite = suite_file(tmp_path, source(says), source(server.put("b.bin", b"b")))
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched", "fetched"]


def test_a_failure_nobody_thought_of_stops_its_own_source_only(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    suite = suite_file(tmp_path, source(server.put("a.bin")), source(server.put("b.bin", b"b")))
    original = transfer._transfer

    def broken(url: str, *rest: Any) -> Path:
        if url.endswith("a.bin"):
            raise ZeroDivisionError("of\nall")
        return original(url, *rest)

    monkeypatch.setattr(transfer, "_transfer", broken)
    assert main(["data", "fetch", "--suite", suite, "--data", str(tmp_path / "root"), "--yes"]) == 1
    told = capsys.readouterr()
    assert "birds: unexpected ZeroDivisionError: of all" in told.err and told.err.count("\n") == 1
    assert "fetched: 1, failed: 1" in told.out


def test_a_servers_words_cannot_paint_the_terminal(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Handler.send_response
    monkeypatch.setattr(Handler, "send_response", lambda h, code: original(h, code, "\x1b[2J\x07gone"))
    table = fetch(suite_file(tmp_path, source(server.put("x.zip", status=404))), str(tmp_path / "root"))
    assert r"the server says 404 \x1b[2J\x07gone" in table["problem"][0]


def test_the_python_call_returns_a_row_a_source(server: Server, tmp_path: Path) -> None:
    suite = birds(server, tmp_path)
    table = fetch(suite, str(tmp_path / "root"), quiet=True)
    assert states(table) == ["fetched"] and list(table["task"]) == ["Birds"] and list(table["problem"]) == [""]
    assert states(fetch(suite, str(tmp_path / "root"), ["birds"], confirm=lambda _: False)) == ["have"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["--suite", "rs8"], "--data: give the folder"),
        (["--suite", "demo", "--data", "x"], "renders its own images"),
        (["--suite", "rs9", "--data", "x"], "did you mean 'rs8'"),
        (["--suite", "rs8", "--data", "x", "--tasks", "AIDS"], "did you mean 'AID'"),
        (["--suite", "rs8", "--data", __file__], "must be a folder, this is a file"),
        (["--suite", "rs8", "--data", "x", "--ye"], "unknown argument '--ye'; did you mean '--yes'"),
        (["--suite", "rs8", "--data", "x", "--tasks", ","], "--tasks: none given"),
    ],
)
def test_mistakes_are_one_line(capsys: Capture, command: list[str], said: str) -> None:
    assert main(["data", "fetch", *command]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_tasks_that_share_a_folder_share_its_sources(tmp_path: Path) -> None:
    (step,) = plan(load_suite("fashion20"), tmp_path).steps
    assert step.task == "Fashion00 to Fashion19" and len(step.tasks) == 20 and step.state == "by hand"


def test_what_a_library_downloads_goes_through_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub.yaml").write_text(
        "tasks:\n  - {name: Hub, template: '{}', task_name: x, reader: {kind: huggingface, hub: someone/colours}}\n"
    )
    calls: list[Path] = []
    monkeypatch.setattr("bench.datasets.hub.fetch", lambda folder, options: calls.append(folder))
    table = fetch(str(tmp_path / "hub.yaml"), str(tmp_path / "root"))
    assert states(table) == ["fetched"] and list(table["what"]) == ["huggingface someone/colours"]
    assert calls == [tmp_path / "root" / "Hub"]


def test_library_sets_that_differ_in_any_option_are_two_steps(tmp_path: Path) -> None:
    task = "{name: %s, folder: hub, template: '{}', task_name: x, reader: {kind: huggingface, hub: a/b, config: %s}}"
    (tmp_path / "hub.yaml").write_text(
        "tasks:\n" + "".join(f"  - {task % pair}\n" for pair in (("A", "small"), ("B", "large"), ("C", "large")))
    )
    steps = plan(load_suite(str(tmp_path / "hub.yaml")), tmp_path).steps
    assert [(step.tasks, step.source.reader["config"]) for step in steps] == [(("A",), "small"), (("B", "C"), "large")]


@pytest.mark.parametrize("other", ["{fetch: 'http://x/b/a.zip'", "{fetch: 'http://x/a.zip', unpack: {b: b}"])
def test_tasks_that_share_a_folder_must_mean_the_same_by_a_file(tmp_path: Path, other: str) -> None:
    task = "  - {name: %s, folder: birds, template: '{}', task_name: x, sources: [%s}]}\n"
    text = "tasks:\n" + task % ("A", "{fetch: 'http://x/a.zip'") + task % ("B", other)
    (tmp_path / "two.yaml").write_text(text)
    with pytest.raises(UserError, match=r"two\.yaml: tasks A and B share .*birds and differ in .* say of a\.zip"):
        plan(load_suite(str(tmp_path / "two.yaml")), tmp_path)


def test_folders_of_any_name_can_be_printed(server: Server, tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / os.fsdecode(b"not-\xff-text\x1b[2J")
    assert main(["data", "fetch", "--suite", birds(server, tmp_path), "--data", str(root), "--yes"]) == 0
    shown = capsys.readouterr().out
    shown.encode()
    assert r"not-\udcff-text\x1b[2J" in shown and "\x1b" not in shown


def test_the_next_call_goes_on_too_by_the_servers_version(server: Server, tmp_path: Path) -> None:
    suite = suite_file(tmp_path, source(server.put("x.bin", cuts=[30_000, 10_000, 10_000, 10_000])))
    table = fetch(suite, str(tmp_path / "root"))
    assert states(table) == ["failed"]
    assert "ended after 60000 of 100000 bytes; 60 kB are kept, the same command goes on" in table["problem"][0]
    assert names(tmp_path / "root" / "birds") == [".x.bin.fetch"]
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"]
    assert server.ranges[-1] == "bytes=60000-"
    assert (tmp_path / "root/birds/x.bin").read_bytes() == CONTENT
    assert names(tmp_path / "root" / "birds") == ["x.bin"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_names_both_and_the_next_call_starts_anew(server: Server, tmp_path: Path, kind: str) -> None:
    good, bad = hashlib.new(kind, CONTENT).hexdigest(), hashlib.new(kind, b"other").hexdigest()
    url = server.put("x.bin", b"other")
    suite = suite_file(tmp_path, source(url, **{kind: f"'{good}'"}))
    table = fetch(suite, str(tmp_path / "root"))
    assert states(table) == ["failed"]
    assert f"its {kind} is {bad}, expected is {good}" in table["problem"][0] and "x.bin" in table["problem"][0]
    assert names(tmp_path / "root" / "birds") == []
    server.put("x.bin")
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"] and server.ranges[-1] is None


# What is there already ----------------------------------------------------------------------------------------


def test_images_that_are_there_are_left_alone_and_the_plan_says_so(
    server: Server, tmp_path: Path, capsys: Capture
) -> None:
    suite = birds(server, tmp_path)
    mine = tmp_path / "root" / "birds" / "images" / "crow"
    mine.mkdir(parents=True)
    for number in range(5):
        (mine / f"{number}.jpg").write_bytes(b"mine")
    assert main(["data", "fetch", "--suite", suite, "--data", str(tmp_path / "root"), "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "Birds is partial" in shown and f"move {mine.parent} away to get the whole" in shown
    assert server.requests == [] and len(names(mine)) == 5


def test_a_task_that_is_ready_in_another_layout_needs_nothing(server: Server, tmp_path: Path) -> None:
    suite = birds(server, tmp_path)
    Path(suite).write_text(
        Path(suite).read_text().replace("images: images}, classes", "images: [images, photos]}, classes")
    )
    for name in classes("photos"):
        (tmp_path / "root" / "birds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / "birds" / name).write_bytes(b"mine")
    assert states(fetch(suite, str(tmp_path / "root"))) == ["have"] and server.requests == []


def test_an_archive_the_user_brought_is_unpacked_and_kept(server: Server, tmp_path: Path) -> None:
    suite = birds(server, tmp_path)
    folder = tmp_path / "root" / "birds"
    folder.mkdir(parents=True)
    (folder / "birds.tar.gz").write_bytes(server.pages["/birds.tar.gz"].content)
    assert states(fetch(suite, str(tmp_path / "root"), confirm=lambda _: False)) == ["to unpack"]
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"]
    assert names(folder) == ["birds.tar.gz", "images"] and server.requests == []


def test_an_archive_of_the_user_with_another_checksum_is_named_and_kept(server: Server, tmp_path: Path) -> None:
    suite = birds(server, tmp_path)
    folder = tmp_path / "root" / "birds"
    folder.mkdir(parents=True)
    (folder / "birds.tar.gz").write_bytes(b"mine")
    table = fetch(suite, str(tmp_path / "root"))
    assert states(table) == ["failed"] and "move it away" in table["problem"][0]
    assert (folder / "birds.tar.gz").read_bytes() == b"mine" and names(folder) == ["birds.tar.gz"]


def test_an_archive_the_user_brought_after_a_cut_is_kept_and_our_rest_is_removed(
    server: Server, tmp_path: Path
) -> None:
    suite, folder = birds(server, tmp_path, cuts=[100, 0, 0, 0]), tmp_path / "root" / "birds"
    assert states(fetch(suite, str(tmp_path / "root"))) == ["failed"]
    assert names(folder) == [".birds.tar.gz.fetch"]
    (folder / "birds.tar.gz").write_bytes(server.pages["/birds.tar.gz"].content)  # by browser, meanwhile
    assert states(fetch(suite, str(tmp_path / "root"), confirm=lambda _: False)) == ["to unpack"]
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"]
    assert names(folder) == ["birds.tar.gz", "images"]


def test_a_part_of_somebody_elses_is_not_written_over(server: Server, tmp_path: Path) -> None:
    """Firefox gives its unfinished downloads the name of the file and .part."""
    suite, folder = birds(server, tmp_path), tmp_path / "root" / "birds"
    folder.mkdir(parents=True)
    (folder / "birds.tar.gz.part").write_bytes(b"Firefox's")
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"]
    assert names(folder) == ["birds.tar.gz.part", "images"]
    assert (folder / "birds.tar.gz.part").read_bytes() == b"Firefox's"


def test_an_archive_by_hand_that_is_not_unpacked_is_not_the_data(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "aid").mkdir()
    (tmp_path / "aid" / "AID.zip").write_bytes(b"packed")
    command = ["--suite", "rs8", "--data", str(tmp_path)]
    assert main(["data", "fetch", *command, "--tasks", "AID"]) == 0
    shown = capsys.readouterr().out
    assert "- AID.zip (2.6 GB, licence: for research purposes): it is there, but packed: unpack it" in shown
    assert "0 of 1 are there" in shown


@pytest.mark.parametrize("moment", ["verified", "unpacking", "moved", "unpacked"])
def test_killed_at_any_moment_the_next_run_does_the_rest_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    suite, root = birds(server, tmp_path), str(tmp_path / "root")
    owner, name = {
        "verified": (fetching, "unpack"),
        "unpacking": (shutil, "copyfileobj"),
        "moved": (os, "rename"),
        "unpacked": (shutil, "rmtree"),
    }[moment]
    original = getattr(owner, name)

    def killed(*args: Any, **more: Any) -> None:
        if moment != "unpacked" or Path(args[0]).name == ".birds.tar.gz.fetch":
            raise KeyboardInterrupt
        original(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment != "unpacked":
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill clears nothing away
        patch.setattr(owner, name, killed)
        fetch(suite, root)
    assert ".birds.tar.gz.fetch" in names(tmp_path / "root" / "birds")
    fetch(suite, root)
    assert check_suite(load_suite(suite), tmp_path / "root")["state"][0] == "ready"
    assert len(server.requests) == 1
    assert names(tmp_path / "root" / "birds") == ["images"], "what we downloaded is cleared away"


def test_two_at_a_time_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    suite = birds(server, tmp_path)
    folder = tmp_path / "root" / "birds"
    folder.mkdir(parents=True)
    with locked(folder, "fetch"):
        table = fetch(suite, str(tmp_path / "root"))
    assert states(table) == ["failed"] and "another process is at it" in table["problem"][0]
    assert server.requests == []
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"]


def test_a_disk_without_locks_is_fetched_to(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert states(fetch(birds(server, tmp_path), str(tmp_path / "root"))) == ["fetched"]


def test_a_web_page_in_place_of_an_archive_is_removed_and_fetched_again(server: Server, tmp_path: Path) -> None:
    good = targz(classes("images"))
    for number, bad in enumerate((b"<!DOCTYPE html>Please log in", good[:-20])):
        url = server.put("birds.tar.gz", bad)
        suite, root = suite_file(tmp_path, source(url, unpack="{images: images}")), tmp_path / f"root{number}"
        table = fetch(suite, str(root))
        assert states(table) == ["failed"] and "it is removed, the same command does that" in table["problem"][0]
        assert names(root / "birds") == []
        server.put("birds.tar.gz", good)
        assert states(fetch(suite, str(root))) == ["fetched"]


def test_a_download_that_may_be_right_is_kept(server: Server, tmp_path: Path) -> None:
    """What is wrong here is the suite file: nobody should download all of it again for that."""
    plain = b"no archive, and its checksum is right"
    url, md5 = server.put("birds.tar.gz", targz(classes("images"))), hashlib.md5(plain).hexdigest()  # noqa: S324 - MD5 as data sets publish it
    suites = ({"unpack": "{pictures: images}"}, {"unpack": "{images: images}", "md5": f"'{md5}'"})
    for number, keys in enumerate(suites):
        suite, root = suite_file(tmp_path, source(url, **keys)), tmp_path / f"root{number}"
        assert states(fetch(suite, str(root))) == ["failed"]
        assert names(root / "birds") == [".birds.tar.gz.fetch"]
        url = server.put("birds.tar.gz", plain)


def test_a_damaged_archive_of_the_user_is_kept(server: Server, tmp_path: Path) -> None:
    suite = suite_file(tmp_path, source(server.put("birds.zip"), unpack="{images: images}"))
    (tmp_path / "root" / "birds").mkdir(parents=True)
    (tmp_path / "root" / "birds" / "birds.zip").write_bytes(b"mine")
    table = fetch(suite, str(tmp_path / "root"))
    assert "damaged" in table["problem"][0] and "removed" not in table["problem"][0]
    assert names(tmp_path / "root" / "birds") == ["birds.zip"]


def test_a_hostile_archive_is_refused_and_what_was_downloaded_is_named(server: Server, tmp_path: Path) -> None:
    url = server.put("birds.tar.gz", targz({**classes("images"), "../../evil": b"evil"}))
    suite = suite_file(tmp_path, source(url, unpack="{images: images}"))
    table = fetch(suite, str(tmp_path / "root"))
    assert states(table) == ["failed"] and "'../../evil' would stand outside" in table["problem"][0]
    assert "evil" not in {path.name for path in tmp_path.rglob("*")}
    assert not (tmp_path / "root" / "birds" / "images").exists()


# Space --------------------------------------------------------------------------------------------------------


def test_too_little_space_is_said_before_anything_is_downloaded(
    server: Server, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 1_900_000))
    suite = birds(server, tmp_path)  # 1 MB packed, 1 MB unpacked
    assert main(["data", "fetch", "--suite", suite, "--data", str(tmp_path / "root"), "--yes"]) == 2
    told = capsys.readouterr()
    assert "2.0 MB are needed" in told.err and "1.9 MB are free" in told.err and "not enough" in told.out
    assert server.requests == [] and not (tmp_path / "root").exists()
    with pytest.raises(UserError, match="are needed"):
        fetch(suite, str(tmp_path / "root"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 2_100_000))
    assert states(fetch(suite, str(tmp_path / "root"))) == ["fetched"]
