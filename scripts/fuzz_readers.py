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
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_datasets import lists, matlab, tarred, taxa, zipped
from fuzz_inputs import (
    NUMBERS,
    TEXTS,
    Reader,
    changed_bytes,
    changed_json,
    changed_lines,
    changed_safetensors,
    changed_tree,
    changed_yaml,
)
from fuzz_parquet import hugging_face, packs, predictions
from fuzz_worlds import beside, runs, tiny, without_checksum

from bench.errors import UserError

ROOT = Path(__file__).parents[1]


# YAML and JSON ------------------------------------------------------------------------------------------------


def suite(root: Path) -> Reader:
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_task

    world = tiny(root)
    text = Path(world.suite).read_text()
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
            load_task(spec, world.data, allow_missing=True, write=False)

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

    examples = [json.loads(path.read_text()) for path in runs(root).rglob("*.json")]
    examples += [without_checksum(example) for example in examples]
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
    """A folder of sound records and one that is not: the report, without pictures, is made of the sound ones."""
    from bench.reports import write
    from bench.reports.config import ReportConfig

    shutil.copytree(runs(root), root / "mixed")
    example = without_checksum(json.loads(next((root / "mixed").rglob("coop/*.json")).read_text()))
    file = root / "mixed" / "odd.json"

    def read() -> None:
        write(ReportConfig(str(root / "mixed"), str(root / "report"), format=("html", "md", "tex", "csv")))

    return Reader(file, lambda rng: changed_json(example, rng), read)


def claim(root: Path) -> Reader:
    """Another process's claim: whatever it says, a cell is free or it is waited for."""
    from bench.claims import CLAIMS

    with CLAIMS.taking([root / "mine.claim"]):
        example = json.loads((root / "mine.claim").read_text())
    file = root / "cell.claim"

    def read() -> None:
        CLAIMS.is_free(file), CLAIMS.owner(file)

    return Reader(file, lambda rng: changed_json(example, rng), read, ())


def note(root: Path) -> Reader:
    from bench.clip.backbone import _note_of, noted

    file = _note_of("weights")
    return Reader(
        file, lambda rng: changed_json(["tiny-clip.json", "/x/weights.safetensors"], rng), lambda: noted("weights")
    )


# Models and tensors -------------------------------------------------------------------------------------------


def model(root: Path) -> Reader:
    from bench.clip.backbone import load_backbone

    world = tiny(root)
    here = root / "model"
    shutil.copytree(world.root, here, ignore=shutil.ignore_patterns("data"))
    example = json.loads((here / "tiny-clip.json").read_text())
    example["vision_cfg"]["timm_model_name"] = None
    file = here / "mine.json"
    shutil.copy(here / "tiny-clip.safetensors", here / "mine.safetensors")
    return Reader(file, lambda rng: changed_json(example, rng), lambda: load_backbone(str(file)))


def vocabulary(root: Path) -> Reader:
    from bench.clip.backbone import load_backbone

    here = root / "vocabulary"
    shutil.copytree(tiny(root).root, here, ignore=shutil.ignore_patterns("data"))
    file = here / "tiny-bpe.txt.gz"
    text = gzip.decompress(file.read_bytes()).decode()

    def make(rng: Random) -> bytes:
        data = gzip.compress(changed_lines(text, rng), 1)
        return changed_bytes(data, rng) if rng.random() < 0.3 else data

    return Reader(file, make, lambda: load_backbone(str(here / "tiny-clip.json")))


def weights(root: Path) -> Reader:
    from bench.clip.backbone import load_backbone

    here = root / "weights"
    shutil.copytree(tiny(root).root, here, ignore=shutil.ignore_patterns("data"))
    file = here / "tiny-clip.safetensors"
    data = file.read_bytes()
    return Reader(file, lambda rng: changed_safetensors(data, rng), lambda: load_backbone(str(here / "tiny-clip.json")))


def state(root: Path) -> Reader:
    import bench.saved
    from bench.saved import load_cell, words

    data = beside(root, "coop/*.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    text = json.dumps({**header, "__metadata__": without_checksum(header["__metadata__"])}).encode()
    examples = (data, struct.pack("<Q", len(text)) + text + data[8 + size :])
    file = root / "state.safetensors"
    bench.saved.load_backbone = lru_cache(maxsize=1)(bench.saved.load_backbone)  # the same each time
    backbone = tiny(root).backbone
    return Reader(
        file,
        lambda rng: changed_safetensors(rng.choice(examples), rng),
        lambda: words(load_cell(str(file), backbone=backbone)),
    )


def block(root: Path) -> Reader:
    """A damaged block is made anew, so its reader says None."""
    from bench.datasets.cache_paths import cache_folder
    from bench.features.cache import _described, read_block

    runs(root)
    data = min((cache_folder() / "features").rglob("*.safetensors"), key=lambda path: path.stat().st_size).read_bytes()
    file = root / "block.safetensors"

    def read() -> None:
        found = read_block(file)
        _described(file)
        if found is not None:
            found.float().sum()

    return Reader(file, lambda rng: changed_safetensors(data, rng), read, ())


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
    images = tiny(root).images()[:3]
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
        for left in folder.glob(f"{HASHES}-*"):
            left.unlink()
        found = ImageHashes(folder)
        assert all(isinstance(digest, str) for digest in found.of(images))  # noqa: S101 - what the fuzz run looks for
        assert found.broken(images) == []  # noqa: S101 - what the fuzz run looks for

    return Reader(file, make, read)


def command_line(root: Path) -> Reader:
    import contextlib

    import bench.plan
    from bench.cli import main

    world, records = tiny(root), runs(root)

    def no_demo(*_: Any) -> None:
        raise UserError("the demo is left out here: it renders images")

    bench.plan.ensure_demo = no_demo
    key = json.loads(beside(root, "coop/*.json").read_text())["key"]
    photo, where = str(world.images()[0]), ["--results", str(records)]
    grid = ["run", "--suite", world.suite, "--data", str(world.data), "--backbone", world.backbone, "--methods", "coop"]
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
        ["list", "tasks", "C*", "--suite", world.suite],
        ["list", "methods"],
        ["list", "classes", "--task", "Colour"],
        ["explain", "coop"],
        ["words", "--cell", key[:8], *where, "--top", "2", "--task", "Colour"],
        ["predict", photo, "--cell", key[:8], *where, "--task", "Colour", "--top", "1"],
        ["data", "check", "--suite", world.suite, "--data", str(world.data)],
        ["cache"],
        ["--version"],
        ["--help"],
        ["data", "splits", "--suite", world.suite, "--data", str(world.data), "--out", "draws", "--shots", "1"],
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
    "reports": (report, 0.25),
    "notes of backbones": (note, 5),
    "claims": (claim, 5),
    "model JSON": (model, 0.6),
    "vocabularies": (vocabulary, 0.5),
    "weights": (weights, 0.6),
    "saved states": (state, 3),
    "feature blocks": (block, 12),
    "predictions": (predictions, 4),
    "packed records": (packs, 4),
    "Hugging Face data": (hugging_face, 1),
    "images": (image, 10),
    "image hashes": (hashes, 1),
    "zip archives": (zipped, 4),
    "tar archives": (tarred, 4),
    "MATLAB lists": (matlab, 3),
    "lists and tables": (lists, 12),
    "taxa": (taxa, 2),
    "command line": (command_line, 1.5),
}
__all__ = ["READERS", "Reader", "changed_tree"]
