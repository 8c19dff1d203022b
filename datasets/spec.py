"""Suites as data: one YAML file names the tasks and where their images stand (docs/data.md has the keys)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.datasets import hub
from bench.datasets.readers import COMMON_OPTIONS
from bench.datasets.registry import READERS
from bench.datasets.sources import Source
from bench.datasets.splitfiles import read_json
from bench.datasets.tree import check_paths
from bench.datasets.types import class_name
from bench.datasets.yamlfiles import Key, check_keys, is_kind, must_be, read_yaml, values_of
from bench.errors import UserError, nearest
from bench.files import NO_TEXT, is_text, user_path
from bench.metrics import METRICS

PARTS = ("train", "val", "test")  # of the tasks that a data set is divided into: `--suite NAME:test`
SUITE_KEYS = {
    **{"extends": Key(str), "title": Key(str), "note": Key(str, "")},
    **{"recipe": Key(Mapping, {}), "views": Key(int, minimum=1)},
    **{"demo": Key(bool, False), "backbone": Key(str, ""), "defaults": Key(Mapping, {})},
    "tasks": Key(Sequence, needed=True),
}
TASK_KEYS = {
    **{"name": Key(str, needed=True), "folder": Key(object), "reader": Key(Mapping, {"kind": "folders"})},
    **{"metric": Key(str, next(iter(METRICS))), "template": Key(object), "descriptions": Key(str, "")},
    **{"task_name": Key(object), "classes": Key(int, minimum=2), "images": Key(int, minimum=1)},
    **{"sources": Key(Sequence, ()), "note": Key(str, ""), "path": Key(object)},
}
SOURCE_KEYS = {
    **dict.fromkeys(("what", "url", "size", "licence", "how", "file", "md5", "sha256"), Key(str, "")),
    **{"fetch": Key(object, False), "unpack": Key(dict, {})},
}
PATH_OPTIONS = ("images", "pool", "parts", "split", "files")  # of readers: below the data root
MAX_NAME = 200  # bytes of a task's name, which is a part of file names
DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class TaskSpec:
    """What a suite file says of one task."""

    name: str
    folder: str  # below the data root
    reader: dict[str, Any]  # {"kind": ..., options}
    metric: str  # "overall_acc" or "mean_acc"
    template: str | tuple[str, ...]  # the hand-written prompt or prompts, "{}" stands for the class name
    task_name: str  # "" where the user's copy names the task
    task_names: tuple[str, ...]  # all that the suite file gives it, of which that is the first
    n_classes: int | None  # None where the user's copy says
    sources: tuple[Source, ...]
    note: str
    n_images: int | None = None  # of the official data set, where there is one number for it
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # sentences of classes, by name
    other_folders: tuple[str, ...] = ()  # where others keep it
    part: str = ""  # of `PARTS`, of a task that is made from data
    path: tuple[str, ...] = ()  # the nodes above it in the suite's tree of tasks, from the top

    def folder_in(self, root: Path) -> Path:
        """The folder of its data: of those that the suite file names, the first that is there, else the first."""
        named = [root / folder for folder in (self.folder, *self.other_folders)]
        return next((folder for folder in named if folder.is_dir()), named[0])

    @property
    def split_name(self) -> str:
        """The name in its own split file; a `split_name` of several tasks is in the name of a file of all of them."""
        return self.name if "task" in self.reader else self.reader.get("split_name", self.name)

    def called(self, task_name: str) -> TaskSpec:
        """The task under this name; where it is not the suite file's, it is the only one."""
        names = self.task_names if task_name == self.task_name else (task_name,)
        return replace(self, task_name=task_name, task_names=names)


@dataclass(frozen=True)
class Suite:
    """What a suite file says."""

    name: str
    title: str
    tasks: tuple[TaskSpec, ...]
    recipe: dict[str, Any]  # overrides of the methods' recipe, e.g. {"epochs": 20}
    views: int | None
    demo: bool
    note: str
    path: Path
    backbone: str | None  # the default backbone, where the suite brings one
    part: str = ""  # of `PARTS`: only these of the tasks that its data is divided into

    @property
    def argument(self) -> str:
        """What names it on the command line: the name of one of the package's, the path of a user's own."""
        return self.name if self.path.parent == _folder() else f"{self.path}{':' * bool(self.part)}{self.part}"

    @property
    def from_data(self) -> bool:
        """Whether data says which tasks there are: an entry stands for many."""
        return any(READERS[spec.reader["kind"]].many and "taxon" not in spec.reader for spec in self.tasks)

    def at(self, root: Path) -> Suite:
        """The suite with the tasks that the data below a root gives, where an entry stands for many.

        Without that data the entry stays: reading it says what is missing.
        """
        made = [task for spec in self.tasks for task in _made(spec, root)]
        tasks = tuple(task for task in made if task.part in ("", self.part or task.part))
        if not tasks:
            raise UserError(f"suite {self.name}: none of its {len(made)} tasks below {root} is in this part")
        if twice := _twice(task.name for task in tasks):
            raise UserError(f"{self.path}: two tasks have the name {twice!r}")
        check_paths(self.path, {task.name: task.path for task in tasks})
        return replace(self, tasks=tasks)


def suite_names() -> list[str]:
    """The suites that come with the package."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def load_suite(name_or_path: str, asked: str = "suite") -> Suite:
    """A suite by its name, or a user's own by the path of its YAML file; with ":test" at the end, a part of it.

    asked : what an error calls the argument.
    """
    text = str(name_or_path)
    name, colon, part = text.rpartition(":")
    whole = name if (colon and part in PARTS) or name.lower() in suite_names() else text
    file = _file(whole, asked=asked)
    suite = _suite(file, _content(file))
    if whole == text:
        return suite
    if not suite.from_data:
        raise UserError(f"suite {text!r}: the tasks of {suite.name} are not divided into parts; write {whole}")
    if part not in PARTS:
        raise UserError(f"{asked}: {text!r}: {part!r} is no part of its tasks; {nearest(part, PARTS)}")
    return replace(suite, name=f"{suite.name}:{part}", title=f"{suite.title}: {part}", part=part)


def _file(text: str, beside: Path = Path(), asked: str = "suite") -> Path:
    """The file of a suite, by the suite's name or the file's path, relative to the folder `beside`."""
    by_name = {name.lower(): _folder() / f"{name}.yaml" for name in suite_names()}
    file = by_name.get(text.lower()) or beside / user_path(text)
    if not file.is_file():
        looks_like_path = "/" in text or "\\" in text or text.endswith((".yaml", ".yml"))
        hint = "no such file" if looks_like_path else nearest(text, suite_names())
        raise UserError(f"{asked}: {text!r} is neither a suite's name nor a suite file; {hint}")
    return file


def _content(file: Path) -> dict[str, Any]:
    """What a suite file says, above what the suite that it `extends` says: defaults key by key, else whole values."""
    content = dict(read_yaml(file))
    above = content.pop("extends", None)
    if above is None:
        return content
    must_be(f"{file}: `extends`", above, Key(str))
    base = dict(read_yaml(_file(above, file.parent)))
    if "extends" in base:
        raise UserError(f"{file}: `extends` {above!r}: extends another suite itself; name that one")
    for given in (base, content):
        must_be(f"{file}: `defaults`", given.setdefault("defaults", {}), Key(Mapping))
    return {**base, **content, "defaults": {**base["defaults"], **content["defaults"]}}


def _made(spec: TaskSpec, root: Path) -> Sequence[TaskSpec]:
    """The tasks that an entry stands for; itself of most kinds."""
    many = READERS[spec.reader["kind"]].many
    return many(spec, spec.folder_in(root)) if many else (spec,)


def _folder() -> Path:
    return Path(__file__).parent / "suites"


def _suite(file: Path, content: Mapping[str, Any]) -> Suite:
    given = values_of(f"{file}: suite", content, SUITE_KEYS)
    if not given["tasks"]:
        raise UserError(f"{file}: `tasks` must be a list of at least one task")
    check_keys(f"{file}: defaults", given["defaults"], TASK_KEYS)
    tasks = tuple(_task(file, {**_named(given["defaults"], entry.get("name")), **entry}) for entry in given["tasks"])
    if twice := _twice(spec.name for spec in tasks):
        raise UserError(f"{file}: two tasks have the name {twice!r}")
    check_paths(file, {spec.name: spec.path for spec in tasks})
    title, backbone = given["title"] or file.stem, given["backbone"]
    if backbone.endswith(".json"):
        backbone = str(_beside(file, backbone))
    kept = {key: given[key] for key in ("recipe", "views", "demo", "note")}
    return Suite(name=file.stem, title=title, tasks=tasks, path=file, backbone=backbone or None, **kept)


def _named(value: Any, name: object) -> Any:
    """A default for a task: in its texts, the task's name for "{name}"."""
    if isinstance(value, dict):
        return {key: _named(entry, name) for key, entry in value.items()}
    if isinstance(value, list):
        return [_named(entry, name) for entry in value]
    return value.replace("{name}", str(name)) if isinstance(value, str) else value


def _beside(file: Path, name: str) -> Path:
    """A path that a file names: relative to that file, `~` is the user's home."""
    return file.parent / Path(name).expanduser()


def _task(file: Path, entry: Mapping[str, Any]) -> TaskSpec:
    at = f"{file}: task {entry.get('name', '')}".rstrip()
    given = values_of(at, entry, TASK_KEYS)
    name, reader = given["name"], _reader(at, given["reader"])
    if given["metric"] not in METRICS:
        raise UserError(f"{at}: unknown metric {given['metric']!r}; {nearest(given['metric'], METRICS)}")
    # A user's own copy names the tasks of Fashion-20; elsewhere the suite file must.
    if given["task_name"] is None and reader["kind"] != "fashion20":
        raise UserError(f"{at}: `task_name` is missing; it must be text")
    task_names = _texts(f"{at}: `task_name`", "" if given["task_name"] is None else given["task_name"])
    folders = [_inside(f"{at}: `folder`", f) for f in _texts(f"{at}: `folder`", given["folder"] or name)]
    library = [Source(what=_library_name(reader), reader=reader)] if hub.can_fetch(reader) else []
    return TaskSpec(
        name=_safe_name(f"{file}: task name", name),
        folder=folders[0],
        other_folders=tuple(folders[1:]),
        reader=reader,
        metric=given["metric"],
        template=_template(at, given["template"]),
        descriptions=_descriptions(file, given["descriptions"]),
        task_name=task_names[0],
        task_names=task_names,
        n_classes=given["classes"],
        sources=(*library, *_sources(f"{at}: sources", given["sources"])),
        note=given["note"],
        n_images=given["images"],
        path=() if given["path"] is None else _texts(f"{at}: `path`", given["path"]),
    )


def _texts(what: str, given: Any) -> tuple[str, ...]:
    """One text, or a list of texts that differ."""
    texts = given if isinstance(given, list) and given else [given]
    for text in texts:
        must_be(what, text, Key(str))
        if texts.count(text) > 1:
            raise UserError(f"{what} {text!r} stands twice")
    return tuple(texts)


def _template(at: str, given: Any) -> str | tuple[str, ...]:
    """One template, or several; a list of one is the one."""
    templates = _texts(f"{at}: `template`", given)
    for text in templates:
        if text.count("{}") != 1 or text.count("{") != 1 or text.count("}") != 1:
            raise UserError(f"{at}: `template` {text!r} must hold one {{}}, for the class name")
    return templates[0] if len(templates) == 1 else templates


def _descriptions(file: Path, name: str) -> dict[str, tuple[str, ...]]:
    """What the file that `descriptions` names says: sentences by class name."""
    if not name:
        return {}
    source = _beside(file, name)
    content = read_yaml(source) if source.suffix in (".yaml", ".yml") else read_json(source)
    if not isinstance(content, dict):
        raise UserError(f"{source}: must be a map {{class name: [sentences]}}, not {repr(content)[:80]}")
    found: dict[str, tuple[str, ...]] = {}
    for key, texts in content.items():
        own = [texts] if isinstance(texts, str) else texts
        if not isinstance(key, str) or not own or not is_kind(own, list) or not all(text.strip() for text in own):
            raise UserError(f"{source}: {key!r} must be a class name with a list of sentences, not {repr(texts)[:80]}")
        if odd := next((text for text in (key, *own) if not is_text(text)), None):
            raise UserError(f"{source}: {odd[:80]!r} holds {NO_TEXT}")
        if class_name(key) in found:
            raise UserError(f"{source}: class {class_name(key)!r} stands twice")
        found[class_name(key)] = tuple(own)
    return found


def _reader(at: str, reader: Mapping[str, Any]) -> dict[str, Any]:
    kind = reader.get("kind")
    if not isinstance(kind, str) or kind not in READERS:
        raise UserError(f"{at}: unknown reader kind {kind!r}; {nearest(str(kind), READERS)}")
    at = f"{at}: reader {kind}"
    if kind == "huggingface" and "imagefolder" in reader:
        raise UserError(f"{at}: `imagefolder` is read by the kinds folders (of classes) and csv (a metadata.csv)")
    for option in READERS[kind].required:
        if option not in reader:
            raise UserError(f"{at} needs `{option}`")
    types = {"kind": str, **COMMON_OPTIONS, **READERS[kind].options}
    # One text may stand for a list of one.
    given: dict[str, Any] = {
        key: [v] if types.get(key) is list and isinstance(v, str) else v
        for key, v in reader.items()
        if v is not None or key not in types
    }
    values_of(at, given, {option: Key(kind) for option, kind in types.items()})
    if given.get("task", 0) < 0:
        raise UserError(f"{at}: `task` must be a whole number from 0 up, not {given['task']}")
    for option in PATH_OPTIONS:
        value = given.get(option, ())
        for path in value.values() if isinstance(value, dict) else [value] if isinstance(value, str) else value:
            _inside(f"{at}: `{option}`", path)
    if "split_name" in given:
        _safe_name(f"{at}: `split_name`", given["split_name"])
    for option in ("strip", "pattern"):
        try:
            re.compile(given.get(option, ""))
        except re.error as error:
            raise UserError(f"{at}: `{option}` {given[option]!r} is not a pattern ({error})") from None
    return given


def _library_name(reader: Mapping[str, Any]) -> str:
    return f"{reader['kind']} {reader.get('hub') or reader.get('class')}"


def _sources(at: str, given: Sequence[Mapping[str, Any]]) -> tuple[Source, ...]:
    sources = tuple(_source(at, entry) for entry in given)
    if twice := _twice(source.file_name for source in sources if source.fetch):
        raise UserError(f"{at}: two are saved as {twice!r}; give one of them another `file`")
    return sources


def _source(at: str, entry: Mapping[str, Any]) -> Source:
    """One source: what people read as texts, what `data fetch` goes by checked."""
    source = Source(**values_of(at, entry, SOURCE_KEYS))
    if not source.fetch:
        for key in ("file", "unpack", *DIGITS):
            if key in entry:
                raise UserError(f"{at}: `{key}` says nothing without `fetch`")
        return source
    url, name = source.address, source.file_name if isinstance(source.address, str) else ""
    if not isinstance(url, str) or not re.fullmatch(r"https?://[^/\s]+/\S*", url):
        raise UserError(f"{at}: `fetch` must be an http(s) address, or true for that of `url`, not {url!r}")
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise UserError(f"{at}: `file` must be the name to save {url} as, without folders, not {name!r}")
    for kind, digits in DIGITS.items():
        if kind in entry and not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", entry[kind]):
            raise UserError(f"{at}: `{kind}` must be {digits} hexadecimal digits, not {entry[kind]!r}")
    if "unpack" in entry and not source.unpack:
        raise UserError(f"{at}: {name}: `unpack` must be a map of texts such as {{dtd/images: images}}")
    for target in source.unpack.values():
        if _inside(f"{at}: {name}: `unpack`", target).strip("./") == "":
            raise UserError(f"{at}: {name}: `unpack` needs a name to unpack to, not {target!r}")
    if _twice(source.unpack.values()):
        raise UserError(f"{at}: {name}: `unpack` takes two members to one place")
    return source


# Names and paths ------------------------------------------------------------------------------------------


def _safe_name(what: str, name: str) -> str:
    """A task's name is part of file names (split_bench_<name>.json)."""
    if not re.fullmatch(r"\w[\w.+-]*", name) or len(name.encode()) > MAX_NAME:
        said = f"must be of letters, digits and -_.+ only, at most {MAX_NAME} bytes"
        raise UserError(f"{what} {name[:MAX_NAME]!r} {said}")
    return name


def _inside(what: str, path: str) -> str:
    """A folder or file below the data root."""
    parts = Path(path.replace("\\", "/")).parts
    if not path or Path(path).is_absolute() or ".." in parts or path[1:2] == ":":
        raise UserError(f"{what} must be a path below the data root, not {path!r}")
    return path


def _twice(names: Iterable[str]) -> str:
    """The first of some names that was there before, in whatever case; "" where all differ."""
    return next((name for name, n in Counter(name.casefold() for name in names).items() if n > 1), "")
