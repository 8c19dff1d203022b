"""What `scripts/fuzz.py` feeds: every reader of files from outside, and the command line, each with valid examples.

A reader here is a small world below a folder of its own: a file that is written anew for each input, and the call that
reads it as a command would. A call may raise what its reader promises to raise (`refuses`), and nothing else.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_inputs import (
    NUMBERS,
    TEXTS,
    changed_bytes,
    changed_json,
    changed_lines,
    changed_safetensors,
    changed_tree,
    changed_yaml,
    odd_value,
)

from bench.errors import UserError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Reader:
    """file : what is written for each input. make : its content. read : what a command does with it.

    refuses : the exceptions that stand for "refused in a line". share : of all inputs, relative to other readers.
    """

    file: Path
    make: Callable[[Random], bytes]
    read: Callable[[], object]
    refuses: tuple[type[Exception], ...] = (UserError,)


@lru_cache(maxsize=1)
def _tiny(root: Path) -> Any:
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import make_tiny

    return make_tiny(root / "tiny")


@lru_cache(maxsize=1)
def _runs(root: Path) -> Path:
    """One cell of CoOp and one of zero-shot, with all that is kept beside their records."""
    tiny = _tiny(root)
    tiny.run(root / "runs", methods=["zero-shot", "coop"], shots=[1], seeds=[1])
    return root / "runs"


def _beside(root: Path, pattern: str) -> Path:
    (found,) = _runs(root).rglob(pattern)
    return found


# YAML and JSON ------------------------------------------------------------------------------------------------


def suite(root: Path) -> Reader:
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_task

    tiny = _tiny(root)
    text = Path(tiny.suite).read_text()
    (root / "words.json").write_text(json.dumps({"dark": ["a dark one"], "grey": ["a grey one"]}))
    more = (
        "title: More\nnote: of everything\nviews: 3\nbackbone: tiny/tiny-clip.json\nrecipe: {epochs: 3}\ntasks:\n"
        "  - {name: A, folder: colour, template: ['a {}.', 'the {}'], task_name: x, classes: 3, images: 36, metric: mean_acc,\n"  # noqa: E501
        "     reader: {kind: folders, exclude: [x], rename: {'green paint': green}, strip: '_.*', camel: true},\n"
        "     sources: [{what: images, url: 'https://example.org/a.zip', size: 3 MB, licence: none, fetch: true,\n"
        f"       file: a.zip, unpack: {{a: b}}, md5: {'0' * 32}}}]}}\n"
        "  - {name: B, folder: shade, template: '{}', task_name: y, descriptions: words.json, reader: {kind: names,\n"
        "     pattern: '(.+)_1', parts: {all: .}}}\n"
    )
    file = root / "suite.yaml"

    def read() -> None:
        for spec in load_suite(str(file)).tasks[:3]:
            load_task(spec, tiny.data, allow_missing=True, write=False)

    return Reader(file, lambda rng: changed_yaml(rng.choice((text, more)), rng), read)


def descriptions(root: Path) -> Reader:
    from bench.datasets.spec import load_suite

    given = {"dark": ["a dark one", "night"], "grey": ["a grey one"], "light": ["a light one"]}
    line = "{name: B, folder: shade, template: '{}', task_name: y, descriptions: words.json, reader: {kind: folders}}"
    (root / "suite.yaml").write_text(f"title: T\ntasks:\n  - {line}\n")
    return Reader(
        root / "words.json", lambda rng: changed_json(given, rng), lambda: load_suite(str(root / "suite.yaml"))
    )


def recipe(root: Path) -> Reader:
    from bench.recipe import load_recipe

    text = "title: Mine\nsource: me\nviews: 5\nall: {epochs: 3, lr: 0.1}\ncoop: {context: 4, words: a photo of}\nplot: {}\n"  # noqa: E501
    file = root / "recipe.yaml"
    return Reader(file, lambda rng: changed_yaml(text, rng), lambda: load_recipe(str(file)))


def experiment(root: Path) -> Reader:
    from bench.config import RunConfig, load_experiment

    text = (
        "suite: ./tiny.yaml\nmethods: [coop, softcpt]\nshots: [1, 16]\nseeds: 1\noptions: {coop.epochs: [2, 3]}\n"
        "keep: false\nviews: 3\nresults: runs\ndata: data\nprecision: float32\ntasks: Colour\ndevice: cpu\nquiet: true\n"  # noqa: E501
    )
    file = root / "experiment.yaml"
    return Reader(file, lambda rng: changed_yaml(text, rng), lambda: RunConfig(**load_experiment(file)).recorded())


def split(root: Path) -> Reader:
    from bench.datasets.splitfiles import read_split

    coop = {
        part: [[f"{part}/{c}{n}.jpg", c, f"class {c}"] for c in range(3) for n in range(2)]
        for part in ("train", "val", "test")
    }
    names = {"taskid2cname": [["a", "b"], ["c", "d"]], "taskid2tname": ["first", "second"]}
    authors = {
        "meta": names,
        **{part: [[f"{part}/{c}.jpg", [c], [t]] for t in range(2) for c in range(2)] for part in coop},
    }
    file = root / "split.json"

    def read() -> None:
        for task in range(2):
            read_split(file, root, task)

    return Reader(file, lambda rng: changed_json(rng.choice((coop, authors)), rng), read)


def packed_split(root: Path) -> Reader:
    from bench.datasets.splitfiles import read_split

    rows = {part: [[f"{part}.jpg", 0, "one"]] for part in ("train", "val", "test")}
    file = root / "split.json.gz"

    def make(rng: Random) -> bytes:
        data = gzip.compress(changed_json(rows, rng) if rng.random() < 0.5 else json.dumps(rows).encode(), 1)
        return changed_bytes(data, rng) if rng.random() < 0.8 else data

    return Reader(file, make, lambda: read_split(file, root))


def draw(root: Path) -> Reader:
    from bench.datasets.draws import read_draw
    from bench.datasets.types import Item, Split

    parts = {
        part: [Item(f"{part}/{c}{n}.jpg", c) for c in range(3) for n in range(2)] for part in ("train", "val", "test")
    }
    whole = Split.of(root, ("a", "b", "c"), parts, source="split.json")
    rows = {
        part: [[item.path, item.label, whole.class_names[item.label]] for item in parts[part]]
        for part in ("train", "val")
    }
    file = root / "draw.json"
    return Reader(file, lambda rng: changed_json(rows, rng), lambda: read_draw(file, whole))


def record(root: Path) -> Reader:
    """`read_record` says that it raises ValueError; who calls it names the file and leaves it out."""
    from bench.records import read_record

    examples = [json.loads(path.read_text()) for path in _runs(root).rglob("*.json")]
    examples.append(
        {k: examples[0][k] for k in ("schema", "key", "cell", "config")} | {"status": "failed", "error": "x"}
    )
    file = root / "record.json"

    def read() -> None:
        found = read_record(file)
        json.dumps(found.to_json())
        if found.done:
            found.rows()

    return Reader(file, lambda rng: changed_json(rng.choice(examples), rng), read, (ValueError, OSError))


def report(root: Path) -> Reader:
    """A folder of sound records and one that is not: the report's tables are made of those that can be read."""
    from bench.reports.config import ReportConfig
    from bench.reports.groups import split
    from bench.reports.records import load
    from bench.reports.tables import build, latex_report, markdown_report, tidy

    shutil.copytree(_runs(root), root / "mixed")
    example = json.loads(next((root / "mixed").rglob("coop/*.json")).read_text())
    file = root / "mixed" / "odd.json"

    def read() -> None:
        loaded = load(ReportConfig(results=str(root / "mixed"), out=str(root / "report")))
        blocks = split(loaded.rows)
        tables = build(blocks)
        markdown_report(tables, 3, {}, loaded.failed), latex_report(tables), tidy(blocks)

    return Reader(file, lambda rng: changed_json(example, rng), read)


def note(root: Path) -> Reader:
    from bench.clip.backbone import _note_of, noted

    file = _note_of("weights")
    return Reader(
        file, lambda rng: changed_json(["tiny-clip.json", "/x/weights.safetensors"], rng), lambda: noted("weights")
    )


# Models and tensors -------------------------------------------------------------------------------------------


def model(root: Path) -> Reader:
    from bench.clip.backbone import load_backbone

    tiny = _tiny(root)
    here = root / "model"
    shutil.copytree(tiny.root, here, ignore=shutil.ignore_patterns("data"))
    example = json.loads((here / "tiny-clip.json").read_text())
    example["vision_cfg"]["timm_model_name"] = None
    file = here / "mine.json"
    shutil.copy(here / "tiny-clip.safetensors", here / "mine.safetensors")
    return Reader(file, lambda rng: changed_json(example, rng), lambda: load_backbone(str(file)))


def vocabulary(root: Path) -> Reader:
    from bench.clip.backbone import load_backbone

    here = root / "vocabulary"
    shutil.copytree(_tiny(root).root, here, ignore=shutil.ignore_patterns("data"))
    file = here / "tiny-bpe.txt.gz"
    text = gzip.decompress(file.read_bytes()).decode()

    def make(rng: Random) -> bytes:
        data = gzip.compress(changed_lines(text, rng), 1)
        return changed_bytes(data, rng) if rng.random() < 0.3 else data

    return Reader(file, make, lambda: load_backbone(str(here / "tiny-clip.json")))


def weights(root: Path) -> Reader:
    from bench.clip.backbone import load_backbone

    here = root / "weights"
    shutil.copytree(_tiny(root).root, here, ignore=shutil.ignore_patterns("data"))
    file = here / "tiny-clip.safetensors"
    data = file.read_bytes()
    return Reader(file, lambda rng: changed_safetensors(data, rng), lambda: load_backbone(str(here / "tiny-clip.json")))


def state(root: Path) -> Reader:
    import bench.saved
    from bench.saved import load_cell, words

    data = _beside(root, "coop/*.safetensors").read_bytes()
    file = root / "state.safetensors"
    bench.saved.load_backbone = lru_cache(maxsize=1)(bench.saved.load_backbone)  # the same each time
    backbone = _tiny(root).backbone
    return Reader(
        file, lambda rng: changed_safetensors(data, rng), lambda: words(load_cell(str(file), backbone=backbone))
    )


def block(root: Path) -> Reader:
    """A damaged block is made anew, so its reader says None."""
    from bench.datasets.cache_paths import cache_folder
    from bench.features.cache import _described, read_block

    _runs(root)
    data = min((cache_folder() / "features").rglob("*.safetensors"), key=lambda path: path.stat().st_size).read_bytes()
    file = root / "block.safetensors"

    def read() -> None:
        found = read_block(file)
        _described(file)
        if found is not None:
            found.float().sum()

    return Reader(file, lambda rng: changed_safetensors(data, rng), read, ())


def predictions(root: Path) -> Reader:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bench.predictions import confused, ece, per_class, read

    source = _beside(root, "coop/*.predictions.parquet")
    data, table = source.read_bytes(), pq.read_table(source)
    file = root / "x.predictions.parquet"

    def make(rng: Random) -> bytes:
        if rng.random() < 0.5:
            return changed_bytes(data, rng)
        changed, metadata = table, dict(table.schema.metadata)
        if rng.random() < 0.5:
            metadata[b"bench"] = changed_json(json.loads(metadata[b"bench"]), rng)
        else:
            k = rng.randrange(table.num_columns)
            values = table.column(k).to_pylist()
            for _ in range(rng.choice((1, len(values)))):
                values[rng.randrange(len(values))] = rng.choice((*NUMBERS, *TEXTS[:20], None))
            try:
                kind = table.schema.field(k).type if rng.random() < 0.7 else None
                changed = table.set_column(k, table.column_names[k], pa.array(values, kind))
            except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
                changed = table.drop_columns([table.column_names[k]])
        out = io.BytesIO()
        pq.write_table(changed.replace_schema_metadata(metadata), out)
        return out.getvalue()

    def look() -> None:
        found = read(file)
        per_class(found), confused(found), ece(found)

    return Reader(file, make, look)


# Images, archives and lists -----------------------------------------------------------------------------------


def image(root: Path) -> Reader:
    from PIL import Image

    from bench.datasets.images import is_image, looks_whole, open_image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    examples = []
    for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind)
        examples.append(out.getvalue())
    file = root / "image.png"

    def read() -> None:
        is_image(file), looks_whole(file.read_bytes())
        open_image(file)

    return Reader(file, lambda rng: changed_bytes(rng.choice(examples), rng), read)


def hashes(root: Path) -> Reader:
    """The cache's own file: garbled by a disk or by another program, it is made anew or refused."""
    from bench.features.hashes import HASHES, ImageHashes

    folder = root / "hashes"
    images = _tiny(root).images()[:3]
    ImageHashes(folder).of(images)
    file = folder / HASHES
    data = file.read_bytes()
    columns = {"file": ("path", "size", "mtime", "ctime", "digest"), "image": ("digest", "state")}

    def make(rng: Random) -> bytes:
        if rng.random() < 0.5:
            return changed_bytes(data, rng)
        file.write_bytes(data)
        db = sqlite3.connect(file)
        table = rng.choice(list(columns))
        value: Any = rng.choice((b"\0bytes", "text", None, -1, 1.5, 2**62, ""))
        with db:
            what = rng.randrange(4)
            if what == 0:
                db.execute(f"DROP TABLE {table}")
            elif what == 1:
                db.execute(f"ALTER TABLE {table} RENAME COLUMN {rng.choice(columns[table])} TO odd")
            else:
                db.execute(f"UPDATE OR REPLACE {table} SET {rng.choice(columns[table])} = ?", (value,))  # noqa: S608 - the names are this file's own
        db.close()
        return file.read_bytes()

    def read() -> None:
        for beside in folder.glob(f"{HASHES}-*"):
            beside.unlink()
        found = ImageHashes(folder)
        assert all(isinstance(digest, str) for digest in found.of(images))  # noqa: S101 - what the fuzz run looks for
        assert found.broken(images) == []  # noqa: S101 - what the fuzz run looks for

    return Reader(file, make, read)


MEMBERS = {"top/a.txt": b"a" * 50, "top/b/c.txt": b"c", "top/b/d.jpg": b"\xff\xd8" * 40, "other.txt": b"o"}


def _unpacked(root: Path, file: Path) -> Callable[[], None]:
    from bench.datasets.archives import unpack

    def read() -> None:
        shutil.rmtree(root / "out", ignore_errors=True)
        unpack(file, root / "out", {"top": "there", "other.txt": "o.txt"})

    return read


def zipped(root: Path) -> Reader:
    file = root / "archive.zip"

    def make(rng: Random) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as content:
            for name, data in MEMBERS.items():
                info = zipfile.ZipInfo(changed_text_name(name, rng))
                info.external_attr = (
                    rng.choice((0o100644, 0o40755, 0o120777, 0o20644, 0)) << 16 if rng.random() < 0.2 else 0
                )
                content.writestr(info, data)
        return changed_bytes(out.getvalue(), rng) if rng.random() < 0.6 else out.getvalue()

    return Reader(file, make, _unpacked(root, file))


def tarred(root: Path) -> Reader:
    file = root / "archive.tar"
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S", b"x", b"L")

    def make(rng: Random) -> bytes:
        out = io.BytesIO()
        form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        with tarfile.open(fileobj=out, mode=rng.choice(("w", "w", "w:gz", "w:xz")), format=form) as content:
            for name, data in MEMBERS.items():
                info = tarfile.TarInfo(changed_text_name(name, rng))
                info.size = len(data)
                if rng.random() < 0.1:
                    info.type, info.linkname = rng.choice(kinds), rng.choice(("top/a.txt", *TEXTS[:30]))
                if rng.random() < 0.1:
                    info.size = rng.choice((0, 1, 10**6))
                try:
                    content.addfile(info, io.BytesIO(data + b"\0" * 10**6))
                except (ValueError, OSError, UnicodeError):  # such a header cannot be written
                    continue
        return changed_bytes(out.getvalue()[:50_000], rng) if rng.random() < 0.6 else out.getvalue()

    return Reader(file, make, _unpacked(root, file))


def changed_text_name(name: str, rng: Random) -> str:
    if rng.random() < 0.7:
        return name
    texts = [text for text in TEXTS if len(text) < 400 and "\ud800" not in text]
    return rng.choice(
        (rng.choice(texts) or "x", f"{name}/{rng.choice(texts)}", f"{rng.choice(texts)}/{name}", *MEMBERS)
    )


def matlab(root: Path) -> Reader:
    from scipy.io import savemat

    from bench.datasets.lists import read_cars, read_flowers

    folder = root / "matlab"
    (folder / "devkit").mkdir(parents=True)
    (folder / "jpg").mkdir()
    (folder / "cat_to_name.json").write_text('{"1": "pink primrose", "2": "fire lily"}')
    rows = np.zeros((1, 2), dtype=[("bbox_x1", object), ("class", object), ("fname", object)])
    rows[0, 0], rows[0, 1] = (0, 1, "1.jpg"), (0, 2, "2.jpg")
    names = np.array(["Acura Integra 2001", "BMW M3 2012"], dtype=object)
    examples = [{"labels": [[1, 2, 1]]}, {"class_names": names}, {"annotations": rows}]
    savemat(folder / "imagelabels.mat", examples[0])
    for path in ("devkit/cars_meta", "devkit/cars_train_annos", "cars_test_annos_withlabels"):
        savemat(folder / f"{path}.mat", examples[1 if "meta" in path else 2])
    file = folder / "any.mat"
    places = ["imagelabels.mat", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"]
    whole = {place: (folder / place).read_bytes() for place in places}

    def make(rng: Random) -> bytes:
        k = rng.randrange(3)
        content = dict(examples[k])
        if rng.random() < 0.5:
            (key,) = content
            value = (
                odd_value(rng)
                if rng.random() < 0.5
                else [[rng.choice(NUMBERS[:9] + NUMBERS[13:]), rng.choice(TEXTS[:20])]]
            )
            content[key] = np.array(value, dtype=object) if rng.random() < 0.5 else value
        out = io.BytesIO()
        try:
            savemat(out, content, format=rng.choice(("5", "5", "4")), do_compression=rng.random() < 0.3)
            data = out.getvalue()
        except Exception:  # what cannot be written as MATLAB's
            data = whole[places[k]]
        return bytes([k]) + (changed_bytes(data, rng) if rng.random() < 0.6 else data)

    def read() -> None:
        data = file.read_bytes()
        for number, place in enumerate(places):
            (folder / place).write_bytes(data[1:] if data[:1] == bytes([number]) else whole[place])
        try:
            read_flowers(folder, {})
        finally:
            read_cars(folder, {})

    return Reader(file, make, read)


LISTS: dict[str, dict[str, str]] = {
    "pets": {
        "annotations/trainval.txt": "# c\nCat_1 1 1 1\ndog_2 2 2 1\n",
        "annotations/test.txt": "Cat_3 1 1 1\ndog_4 2 2 1\n",
    },
    "fgvc": {
        "variants.txt": "A 1\nB-2\n",
        "images_variant_train.txt": "001 A 1\n002 B-2\n",
        "images_variant_val.txt": "003 A 1\n",
        "images_variant_test.txt": "004 B-2\n",
    },
    "sun397": {
        "ClassName.txt": "/a/abbey\n/b/bar/indoor\n",
        "Training_01.txt": "/a/abbey/1.jpg\n/b/bar/indoor/2.jpg\n",
        "Testing_01.txt": "/a/abbey/3.jpg\n",
    },
    "ucf101": {
        "ucfTrainTestlist/classInd.txt": "1 ApplyMakeup\n2 Archery\n",
        "ucfTrainTestlist/trainlist01.txt": "ApplyMakeup/v_1.avi 1\nArchery/v_2.avi 2\n",
        "ucfTrainTestlist/testlist01.txt": "ApplyMakeup/v_3.avi\n",
    },
    "csv": {"labels.csv": "file,label\na.jpg,one\nb.jpg,two\n"},
    "fashion20": {"task_info.csv": "id\tname\tdescription\tlabels\n0\tshape\tx\ta,b\n1\tcollar\ty\tc,d\n"},
}


def lists(root: Path) -> Reader:
    from bench.datasets.registry import READERS

    folder = root / "lists"
    for kind, files in LISTS.items():
        for name, text in files.items():
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / kind / name).write_text(text)
    for images in ("pets/images", "fgvc/images", "sun397/SUN397", "ucf101/UCF-101-midframes", "fashion20/images/0/0"):
        (folder / images).mkdir(parents=True)
    (folder / "csv/a.jpg").touch()
    file = folder / "any.txt"
    places = [(kind, name) for kind, files in LISTS.items() for name in files]
    options: dict[str, dict[str, Any]] = {
        "csv": {"parts": {"all": "labels.csv"}, "image": "file", "label": "label"},
        "fashion20": {"task": 0},
    }

    def make(rng: Random) -> bytes:
        k = rng.randrange(len(places))
        kind, name = places[k]
        return bytes([k]) + changed_lines(LISTS[kind][name], rng)

    def read() -> None:
        data = file.read_bytes() or b"\0"
        kind, name = places[data[0] % len(places)]
        target = folder / kind / name
        target.write_bytes(data[1:])
        try:
            READERS[kind].read(folder / kind, options.get(kind, {}))
        finally:
            target.write_text(LISTS[kind][name])

    return Reader(file, make, read)


# The command line ---------------------------------------------------------------------------------------------


def command_line(root: Path) -> Reader:
    import contextlib

    import bench.plan
    from bench.cli import main

    tiny, runs = _tiny(root), _runs(root)

    def no_demo(*_: Any) -> None:
        raise UserError("the demo is left out here: it renders images")

    bench.plan.ensure_demo = no_demo
    key = json.loads(_beside(root, "coop/*.json").read_text())["key"]
    photo, where = str(tiny.images()[0]), ["--results", str(runs)]
    grid = ["run", "--suite", tiny.suite, "--data", str(tiny.data), "--backbone", tiny.backbone, "--methods", "coop"]
    more = ["--shots", "1,2", "--seeds=1", "-o", "coop.epochs=2", "coop.words=a photo, of", "--protocol", "base2new"]
    examples = [
        [*grid, "--tasks", "Colour", "Shade", *more, "--results", "out"],
        [
            *grid,
            "--views",
            "3",
            "--device",
            "cpu",
            "--precision",
            "bfloat16",
            "--recipe",
            "paper",
            "--cell-timeout",
            "9",
        ],
        [
            *grid,
            "--draws",
            ".",
            "--allow-missing",
            "--discard",
            "--seeds-at-once",
            "--profile",
            "--quiet",
            "--fail-fast",
        ],
        ["report", *where, "--out", "report", "--format", "csv", "--methods", "coop", "--shots", "1"],
        ["list", "tasks", "C*", "--suite", tiny.suite],
        ["list", "methods"],
        ["list", "classes", "--task", "Colour"],
        ["explain", "coop"],
        ["words", "--cell", key[:8], *where, "--top", "2", "--task", "Colour"],
        ["predict", photo, "--cell", key[:8], *where, "--task", "Colour", "--top", "1"],
        ["data", "check", "--suite", tiny.suite, "--data", str(tiny.data)],
        ["cache"],
        ["--version"],
        ["--help"],
        ["data", "splits", "--suite", tiny.suite, "--data", str(tiny.data), "--out", "draws", "--shots", "1"],
    ]
    words = sorted({word for example in examples for word in example})
    odd = [
        t
        for t in TEXTS
        if "escaped" not in t and t[:1] not in ("~", "/") and "\0" not in t and t not in ("..", "\ud800")
    ]
    odd += [str(number) for number in NUMBERS]
    file = root / "argv.json"
    os.chdir(root)

    def make(rng: Random) -> bytes:
        argv = list(rng.choice(examples))
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(len(argv) + 1)
            what = rng.randrange(6)
            if what == 0:
                del argv[at:]
            elif what == 1:
                argv[at : at + 1] = []
            elif what == 2:
                argv.insert(at, rng.choice(words))
            elif what == 3:
                argv[at : at + 1] = [rng.choice(odd)]
            elif what == 4 and at < len(argv):
                argv[at] = rng.choice((f"{argv[at]}={rng.choice(odd)}", f"{argv[at]},{rng.choice(odd)}", argv[at][:-1]))
            else:
                argv.insert(at, rng.choice(odd))
        return json.dumps(argv).encode()

    def read() -> None:
        argv = json.loads(file.read_bytes())
        more = ["--dry-run"] if argv[:1] == ["run"] else []
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*argv, *more])
        except SystemExit as stop:  # argparse's --help
            code = stop.code
        assert code in (0, 1, 2), f"exit code {code}"  # noqa: S101 - what the fuzz run looks for
        assert code != 2 or err.getvalue().startswith(("error: ", "warning: ")), err.getvalue()  # noqa: S101 - what the fuzz run looks for

    return Reader(file, make, read, ())


# name : (what makes it, its share of the inputs)
READERS: dict[str, tuple[Callable[[Path], Reader], float]] = {
    "suite files": (suite, 4),
    "descriptions": (descriptions, 4),
    "recipes": (recipe, 4),
    "experiment files": (experiment, 5),
    "splits": (split, 14),
    "packed splits": (packed_split, 6),
    "draws": (draw, 12),
    "records": (record, 12),
    "reports": (report, 0.6),
    "notes of backbones": (note, 5),
    "model JSON": (model, 0.6),
    "vocabularies": (vocabulary, 0.5),
    "weights": (weights, 0.6),
    "saved states": (state, 3),
    "feature blocks": (block, 12),
    "predictions": (predictions, 3),
    "images": (image, 10),
    "image hashes": (hashes, 1),
    "zip archives": (zipped, 4),
    "tar archives": (tarred, 4),
    "MATLAB lists": (matlab, 3),
    "lists and tables": (lists, 12),
    "command line": (command_line, 1.5),
}
__all__ = ["READERS", "Reader", "changed_tree"]
