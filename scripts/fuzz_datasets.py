"""What `scripts/fuzz.py` feeds to the readers of data sets: archives, MATLAB files and official lists."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_inputs import (
    NUMBERS,
    TEXTS,
    Reader,
    changed_bytes,
    changed_json,
    changed_lines,
    odd_value,
)

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


SPECIES = (("Rosa alba", "White Rose"), ("Rosa canina", "Dog Rose"), ("Rubus idaeus", ""), ("Rubus saxum", "Bramble"))
TAXA_SUITE = """title: Taxa
tasks:
  - {name: All, folder: taxa, template: 'a {}.', task_name: '{group} of {taxon}',
     reader: {kind: taxa, level: genus, names: common, least: 2}}
"""


def taxa(root: Path) -> Reader:
    """iNaturalist's annotation files: whichever is changed, the suite's tasks are made of both."""
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_task

    folder, sound = root / "taxa", {}
    for part in ("train_mini", "val"):
        files = {n: f"{part}/{n // 3}/{n}.jpg" for n in range(3 * len(SPECIES))}
        for path in files.values():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        ranks = {"kingdom": "Plantae", "phylum": "P", "class": "C", "order": "Rosales", "family": "Rosaceae"}
        sound[part] = {
            "info": {"year": 2021},
            "images": [{"id": n, "file_name": path} for n, path in files.items()],
            "annotations": [{"id": n, "image_id": n, "category_id": n // 3} for n in files],
            "categories": [
                {"id": c, "name": name, "common_name": common, "supercategory": "Plants", **ranks, "genus": name[:4]}
                for c, (name, common) in enumerate(SPECIES)
            ],
        }
    suite, file = root / "taxa.yaml", folder / "any.json"
    suite.write_text(TAXA_SUITE)

    def make(rng: Random) -> bytes:
        part = rng.choice(list(sound))
        return part[:1].encode() + changed_json(sound[part], rng)

    def read() -> None:
        data = file.read_bytes()
        for part, content in sound.items():
            changed = data[:1] == part[:1].encode()
            (folder / f"{part}.json").write_bytes(data[1:] if changed else json.dumps(content).encode())
        for spec in load_suite(str(suite)).at(root).tasks[:3]:
            load_task(spec, root, allow_missing=True, write=False)

    return Reader(file, make, read)
