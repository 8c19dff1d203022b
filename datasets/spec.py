"""Suites as data: one YAML file names the tasks and where their images stand (docs/data.md has the keys)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.datasets.readers import COMMON_OPTIONS
from bench.datasets.registry import READERS
from bench.datasets.splitfiles import read_json
from bench.datasets.types import class_name
from bench.errors import UserError, nearest
from bench.files import user_path
from bench.metrics import METRICS

SUITE_KEYS = ("title", "note", "recipe", "views", "demo", "backbone", "defaults", "tasks")
TASK_KEYS = (
    *("name", "folder", "reader", "metric", "template", "descriptions", "task_name"),
    *("classes", "images", "sources", "note"),
)
SOURCE_KEYS = ("what", "url", "size", "licence", "how", "fetch", "file", "unpack", "md5", "sha256")
DIGITS = {"md5": 32, "sha256": 64}
TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    list: "a list of texts",
    dict: "a map of texts",
}


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
    sources: tuple[dict[str, Any], ...]  # texts; `fetch` is True or a text, `unpack` a map of texts
    note: str
    n_images: int | None = None  # of the official data set, where there is one number for it
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # sentences of classes, by name

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

    @property
    def argument(self) -> str:
        """What names it on the command line: the name of one of the package's, the path of a user's own."""
        return self.name if self.path.parent == _folder() else str(self.path)


def suite_names() -> list[str]:
    """The suites that come with the package."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def load_suite(name_or_path: str) -> Suite:
    """A suite by its name, or a user's own by the path of its YAML file."""
    text = str(name_or_path)
    by_name = {name.lower(): _folder() / f"{name}.yaml" for name in suite_names()}
    file = by_name.get(text.lower()) or user_path(text)
    if not file.is_file():
        looks_like_path = "/" in text or "\\" in text or text.endswith((".yaml", ".yml"))
        hint = "no such file" if looks_like_path else nearest(text, suite_names())
        raise UserError(f"suite: {text!r} is neither a suite's name nor a suite file; {hint}")
    return _suite(file, read_yaml(file))


def _folder() -> Path:
    return Path(__file__).parent / "suites"


def _suite(file: Path, content: Mapping[str, Any]) -> Suite:
    _known_keys(file, "suite", content, SUITE_KEYS)
    tasks = content.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise UserError(f"{file}: `tasks` must be a list of at least one task, not {tasks!r}")
    defaults = content.get("defaults", {})
    if not isinstance(defaults, dict):
        raise UserError(f"{file}: `defaults` must be a map of values for all tasks, not {defaults!r}")
    _known_keys(file, "defaults", defaults, TASK_KEYS)
    specs = tuple(_task(file, number, entry, defaults) for number, entry in enumerate(tasks))
    _different(file, [spec.name for spec in specs])
    recipe = content.get("recipe", {})
    if not isinstance(recipe, dict):
        raise UserError(f"{file}: `recipe` must be a map such as {{epochs: 20}}, not {recipe!r}")
    views = content.get("views")
    if views is not None and (not _is(views, int) or views < 1):
        raise UserError(f"{file}: `views` must be a whole number from 1 up, not {views!r}")
    return Suite(
        name=file.stem,
        title=_value(file, "suite", content, "title", str, file.stem),
        tasks=specs,
        recipe=recipe,
        views=views,
        demo=_value(file, "suite", content, "demo", bool, False),
        note=_value(file, "suite", content, "note", str, ""),
        path=file,
        backbone=_backbone(file, _value(file, "suite", content, "backbone", str, "")),
    )


def _backbone(file: Path, name: str) -> str | None:
    """A name as it is; the path of a model JSON relative to the suite file."""
    return str(_beside(file, name)) if name.endswith(".json") else name or None


def _beside(file: Path, name: str) -> Path:
    """A path that a file names: relative to that file, `~` is the user's home."""
    return file.parent / Path(name).expanduser()


def _task(file: Path, number: int, entry: object, defaults: Mapping[str, Any]) -> TaskSpec:
    if not isinstance(entry, dict):
        raise UserError(f"{file}: task {number} must be a map with `name`, `template`, ..., not {entry!r}")
    where = f"task {entry.get('name', number)}"
    _known_keys(file, where, entry, TASK_KEYS)
    given = {**defaults, **entry}
    reader = _reader(file, where, given.get("reader", {"kind": "folders"}))
    name = _value(file, where, given, "name", str)
    metric = _value(file, where, given, "metric", str, next(iter(METRICS)))
    if metric not in METRICS:
        raise UserError(f"{file}: {where}: unknown metric {metric!r}; {nearest(metric, METRICS)}")
    classes = given.get("classes")
    if classes is not None and (not _is(classes, int) or classes < 2):
        raise UserError(f"{file}: {where}: `classes` must be a whole number from 2 up, not {classes!r}")
    images = given.get("images")
    if images is not None and (not _is(images, int) or images < 1):
        raise UserError(f"{file}: {where}: `images` must be a whole number from 1 up, not {images!r}")
    return TaskSpec(
        name=_safe_name(file, "task name", name),
        folder=_inside(file, where, "folder", _value(file, where, given, "folder", str, name)),
        reader=reader,
        metric=metric,
        template=_template(file, where, given.get("template")),
        descriptions=_descriptions(file, where, given),
        # A user's own copy names the tasks of Fashion-20; elsewhere the suite file must.
        task_name=(task_names := _task_names(file, where, given, reader))[0],
        task_names=task_names,
        n_classes=classes,
        sources=_sources(file, where, given.get("sources", [])),
        note=_value(file, where, given, "note", str, ""),
        n_images=images,
    )


def _task_names(file: Path, where: str, given: Mapping[str, Any], reader: Mapping[str, Any]) -> tuple[str, ...]:
    names = given.get("task_name")
    if not isinstance(names, list) or not names:
        return (_value(file, where, given, "task_name", str, "" if reader["kind"] == "fashion20" else None),)
    for name in names:
        _must_be(name, str, f"{file}: {where}: `task_name`")
        if names.count(name) > 1:
            raise UserError(f"{file}: {where}: `task_name` {name!r} stands twice")
    return tuple(names)


def _template(file: Path, where: str, given: object) -> str | tuple[str, ...]:
    """One template, or several; a list of one is the one."""
    templates: list[str] = []
    for entry in given if isinstance(given, list) and given else [given]:
        text = _value(file, where, {"template": entry}, "template", str)
        if len(re.findall(r"\{\}", text)) != 1 or text.count("{") != 1 or text.count("}") != 1:
            raise UserError(f"{file}: {where}: `template` {text!r} must hold one {{}}, for the class name")
        if text in templates:
            raise UserError(f"{file}: {where}: `template` {text!r} stands twice")
        templates.append(text)
    return templates[0] if len(templates) == 1 else tuple(templates)


def _descriptions(file: Path, where: str, given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What the file that `descriptions` names says: sentences by class name."""
    name = _value(file, where, given, "descriptions", str, "")
    if not name:
        return {}
    source = _beside(file, name)
    content = read_yaml(source) if source.suffix in (".yaml", ".yml") else read_json(source)
    if not isinstance(content, dict):
        raise UserError(f"{source}: must be a map {{class name: [sentences]}}, not {repr(content)[:80]}")
    found: dict[str, tuple[str, ...]] = {}
    for key, texts in content.items():
        own = [texts] if isinstance(texts, str) else texts
        if not isinstance(key, str) or not own or not _is(own, list) or not all(text.strip() for text in own):
            raise UserError(f"{source}: {key!r} must be a class name with a list of sentences, not {repr(texts)[:80]}")
        if class_name(key) in found:
            raise UserError(f"{source}: class {class_name(key)!r} stands twice")
        found[class_name(key)] = tuple(own)
    return found


def _reader(file: Path, where: str, reader: object) -> dict[str, Any]:
    if not isinstance(reader, dict) or not isinstance(reader.get("kind"), str):
        raise UserError(f"{file}: {where}: `reader` must be a map with `kind`, not {reader!r}")
    kind = reader["kind"]
    if kind not in READERS:
        raise UserError(f"{file}: {where}: unknown reader kind {kind!r}; {nearest(kind, READERS)}")
    options = {"kind": str, **COMMON_OPTIONS, **READERS[kind].options}
    _known_keys(file, f"{where}: reader {kind}", reader, options)
    for option in READERS[kind].required:
        if option not in reader:
            raise UserError(f"{file}: {where}: reader {kind} needs `{option}`")
    checked: dict[str, Any] = {}
    for option, wanted in options.items():
        if option not in reader:
            continue
        value = reader[option]
        if wanted is list and isinstance(value, str):
            value = [value]  # one text may stand for a list of one
        _must_be(value, wanted, f"{file}: {where}: reader {kind}: `{option}`")
        if option in ("images", "pool", "parts", "split", "files", "imagefolder"):
            paths = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            for path in paths:
                _inside(file, where, option, path)
        checked[option] = value
    if "split_name" in checked:
        _safe_name(file, f"{where}: reader {kind}: `split_name`", checked["split_name"])
    for option in ("strip", "pattern"):
        if option in checked:
            _pattern(file, where, option, checked[option])
    return checked


def _sources(file: Path, where: str, sources: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise UserError(f"{file}: {where}: `sources` must be a list of maps with {', '.join(SOURCE_KEYS)}")
    checked = tuple(_source(file, f"{where}: sources", source) for source in sources)
    files = [name.casefold() for source in checked if (name := file_of(source))]
    for name in files:
        if files.count(name) > 1:
            raise UserError(f"{file}: {where}: sources: two are saved as {name!r}; give one of them another `file`")
    return checked


def _source(file: Path, where: str, given: dict[str, Any]) -> dict[str, Any]:
    """One source: what people read as texts, what `data fetch` goes by checked."""
    _known_keys(file, where, given, SOURCE_KEYS)
    for key, value in given.items():
        if key not in ("fetch", "unpack") and not (_is(value, str) or _is(value, int)):  # of digits alone: a checksum
            raise UserError(f"{file}: {where}: `{key}` must be text, not {value!r}")
    source = {key: value if key in ("fetch", "unpack") else str(value) for key, value in given.items()}
    if source.get("fetch", False) is False:
        needless = [key for key in ("file", "unpack", *DIGITS) if key in source]
        if needless:
            raise UserError(f"{file}: {where}: `{needless[0]}` says nothing without `fetch`")
        return {key: value for key, value in source.items() if key != "fetch"}
    url = source.get("url", "") if source["fetch"] is True else source["fetch"]
    if not isinstance(url, str) or not re.fullmatch(r"https?://[^/\s]+/\S*", url):
        raise UserError(f"{file}: {where}: `fetch` must be an http(s) address, or true for that of `url`, not {url!r}")
    name = file_of(source)
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise UserError(f"{file}: {where}: `file` must be the name to save {url} as, without folders, not {name!r}")
    for kind, digits in DIGITS.items():
        if kind in source and not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", source[kind]):
            raise UserError(f"{file}: {where}: `{kind}` must be {digits} hexadecimal digits, not {source[kind]!r}")
    if "unpack" in source:
        _unpack(file, f"{where}: {name}", source["unpack"])
    return source


def _unpack(file: Path, where: str, unpack: object) -> None:
    if not _is(unpack, dict) or not isinstance(unpack, dict) or not unpack:
        example = "{dtd/images: images}"
        raise UserError(f"{file}: {where}: `unpack` must be a map of texts such as {example}, not {unpack!r}")
    for target in unpack.values():
        if _inside(file, where, "unpack", target).strip("./") == "":
            raise UserError(f"{file}: {where}: `unpack` needs a name to unpack to, not {target!r}")
    if len({target.casefold() for target in unpack.values()}) < len(unpack):
        raise UserError(f"{file}: {where}: `unpack` takes two members to one place")


def file_of(source: Mapping[str, Any]) -> str:
    """The name a source's download is saved as; "" where it is not downloaded."""
    fetched = source.get("fetch", False)
    if fetched is False:
        return ""
    url = str(source.get("url", "") if fetched is True else fetched)
    return str(source.get("file") or url.partition("?")[0].rpartition("/")[2])


def targets_of(source: Mapping[str, Any]) -> dict[str, str]:
    """What a download leaves in the task's folder: member of the archive → path, or {"": the file itself}."""
    return dict(source.get("unpack") or {"": file_of(source)})


# What a value may be --------------------------------------------------------------------------------------


def _is(value: object, kind: type) -> bool:
    """Whether a YAML value is of a kind; entries of lists and maps are texts (an unquoted `no` is not)."""
    if kind is list:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(entry, str) for pair in value.items() for entry in pair)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _value(file: Path, where: str, content: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """A key's value, of the right type; without a default the key is required."""
    value = content.get(key, default)
    if value is None:
        raise UserError(f"{file}: {where}: `{key}` is missing; it must be {TYPE_NAMES[kind]}")
    _must_be(value, kind, f"{file}: {where}: `{key}`")
    return value


def _must_be(value: object, kind: type, what: str) -> None:
    if not _is(value, kind):
        quotes = " (put it in quotes)" if kind in (str, list, dict) else ""
        raise UserError(f"{what} must be {TYPE_NAMES[kind]}, not {value!r}{quotes}")


def _known_keys(
    file: Path, where: str, content: Mapping[Any, Any], known: Mapping[str, type] | tuple[str, ...]
) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{file}: {where}: unknown key {str(key)!r}; {nearest(str(key), known)}")


def _safe_name(file: Path, what: str, name: str) -> str:
    """A task's name is part of file names (split_bench_<name>.json)."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(f"{file}: {what} {name!r} must be of letters, digits and -_.+ only")
    return name


def _inside(file: Path, where: str, key: str, path: str) -> str:
    """A folder or file below the data root."""
    parts = Path(path.replace("\\", "/")).parts
    if not path or Path(path).is_absolute() or ".." in parts or path[1:2] == ":":
        raise UserError(f"{file}: {where}: `{key}` must be a path below the data root, not {path!r}")
    return path


def _pattern(file: Path, where: str, option: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"{file}: {where}: `{option}` {pattern!r} is not a pattern ({error})") from None


def _different(file: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise UserError(f"{file}: two tasks have the name {name!r}")
        seen.add(name.lower())


# YAML -----------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that stands twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> Mapping[str, Any]:
    """A YAML file's map; anything else is an error that names the file."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: a map of names and values is wanted (of a suite: `title` and `tasks`)")
    return content
