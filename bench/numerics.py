"""Which code makes a cell's numbers: the method's own, and what all methods share.

A cell's key holds both, so that no score of an older formula is taken for one of the present code:

- `code` hashes what is a method's own: the modules of its class and its bases, and what they import from `methods/` (of
  a plug-in: from its own package, and from beside it). Comments, docstrings and layout do not count. Whoever edits it
  gets other cells.
- `numerics` is a version that developers raise. It stands for the modules in `SHARED`, because cleaning up one of those
  should not make everybody train again. `numerics.json` holds it with the hashes of the code that it was given to. If
  the code differs, the version is "1+<hash>": other cells again, until a developer has said which it is,

      python -m bench.numerics same      the numbers are the same: the version stays
      python -m bench.numerics changed   they are not: the version is raised, and all cells run again
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from bench.errors import UserError

CONFIRMED = Path(__file__).with_name("numerics.json")

# What the numbers of all methods follow from. Of modules that mostly do other things, the functions that count.
SHARED: dict[str, tuple[str, ...]] = {
    "bench.checkpoints": (),
    "bench.clip.backbone": (),
    "bench.cells": ("needed",),
    "bench.draws": ("few_shot_set", "shards"),
    "bench.datasets.fewshot": (),
    "bench.datasets.images": (),
    "bench.features.cache": ("FORMAT", "IMAGES_PER_BLOCK", "VIEWS_PER_BLOCK", "ImageFeatures", "read_block"),
    "bench.features.encode": (),
    "bench.features.hashes": ("content_digest",),
    "bench.features.views": (),
    "bench.evaluate": ("_data", "_few_shot", "_task_data", "_views"),
    "bench.features.mapped": (),
    "bench.clip.patches": (),
    "bench.clip.projection": (),
    "bench.controls": ("shuffled", "TRIES"),
    "bench.methods.base": (),
    "bench.methods.heads": (),
    "bench.methods.prompt": (),
    "bench.methods.training": (),
    "bench.methods.zero_shot": (),
    "bench.metrics": (),
    "bench.protocols.base": (),
    "bench.protocols.base2new": (),
    "bench.protocols.few_shot": (),
    "bench.protocols.imbalanced": (),
    "bench.protocols.sampled": (),
    "bench.protocols.source_task": (),
    "bench.protocols.suite_to_suite": (),
    "bench.protocols.unseen_task": (),
    "bench.scoring": (),
    "bench.clip.packing": (),
    "bench.clip.text": (),
    "bench.wording": (),
}
INSTALLED = frozenset({"site-packages", "dist-packages"})  # folders of libraries
# What a method's class says of itself: no number follows.
WORDS = frozenset({"unseen", "task_kernel", "controls", "searched"})
FEATURES = ("bench.clip.backbone", "bench.datasets.images", "bench.clip.patches", "bench.clip.projection",
            "bench.features.cache", "bench.features.encode", "bench.features.hashes",
            "bench.features.views")  # of images


def method_code(method: type) -> str:
    """The hash of a method's own code; a plug-in's is preceded by its module and class.

    Raises
    ------
    UserError : nobody can say what its code is.
    """
    sources = list(_own_modules(method)) if _source(method.__module__) else [_of_class(method)]
    digests = sorted(map(digest, sources))
    found = hashlib.blake2b("".join(digests).encode(), digest_size=12).hexdigest()
    own = method.__module__.startswith("bench.methods.")
    return found if own else f"{method.__module__}:{method.__qualname__}:{found}"


def numerics() -> str:
    """The version of the shared code: "1", or "1+<hash>" where it is not as `numerics.json` has it."""
    return f"{_confirmed()['version']}{unconfirmed()}"


def unconfirmed(names: Iterable[str] = SHARED) -> str:
    """ "+<hash>" where some of the shared modules are not as `numerics.json` has them, else ""."""
    other = edited(names)
    return f"+{digest(repr(other))[:8]}" if other else ""


def edited(names: Iterable[str] = SHARED) -> dict[str, str]:
    """Those of the shared modules whose code differs from the confirmed one, with its hash."""
    confirmed = _confirmed()["code"]
    return {name: now for name, now in shared_code(names).items() if confirmed.get(name) != now}


def _confirmed() -> dict[str, Any]:
    return json.loads(CONFIRMED.read_text(encoding="utf-8"))


def shared_code(names: Iterable[str] = SHARED) -> dict[str, str]:
    """The hash of each shared module's code."""
    return {name: digest(_source(name), SHARED[name]) for name in names}


@lru_cache(maxsize=256)
def digest(source: str, only: tuple[str, ...] = ()) -> str:
    """The hash of Python code without comments, docstrings, layout and `WORDS`, the same on every Python.

    Parameters
    ----------
    only : the names of those of its definitions that count (default: everything). One that is missing is a KeyError.
    """
    tree = ast.parse(source)
    if only:
        defined = {name: node for node in tree.body for name in _names(node)}
        tree.body = [defined[name] for name in only]
    text = json.dumps(_plain(tree))
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()


def _names(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def _is_said(node: Any) -> bool:
    """Whether a statement is one of `WORDS`, as in `unseen = "..."`."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return bool(targets) and all(isinstance(target, ast.Name) and target.id in WORDS for target in targets)


def _plain(node: Any) -> Any:
    """A syntax tree as lists. `ast.dump` would not do: it writes other empty fields on other Pythons."""
    if isinstance(node, list):
        return [_plain(item) for item in node if not _is_said(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    body = fields.get("body")
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        fields["body"] = body[1:] if isinstance(body[0].value.value, str) else body
    kept = {name: value for name, value in fields.items() if value not in (None, []) and name != "kind"}
    return [type(node).__name__, {name: _plain(value) for name, value in kept.items()}]


def _own_modules(method: type) -> Iterator[str]:
    """The sources of a method's own modules."""
    todo, seen = [kind.__module__ for kind in method.__mro__], set(SHARED)
    while todo:
        name = todo.pop()
        if name not in seen and _is_own(name, method.__module__):
            seen.add(name)
            source = _source(name)
            yield source
            todo += _imported(source, name)


def _of_class(method: type) -> str:
    """The source of a class whose module has none: a notebook's."""
    try:
        return textwrap.dedent(inspect.getsource(method))
    except (OSError, TypeError):
        name = f"{method.__module__}:{method.__qualname__}"
        raise UserError(
            f"--methods {name}: its source is not at hand, and an edited method would be taken for the old one; put "
            "the class into a file of its own"
        ) from None


def _is_own(name: str, plug_in: str) -> bool:
    """Whether a module is a method's own code, not a library's: one of `methods/`; of a plug-in also what is in its
    package or folder, or anywhere below the folder that it was imported from.

    plug_in : the module of the method's class.
    """
    package, top = plug_in.partition(".")[0], name.partition(".")[0]
    if top == "bench" or package == "bench":
        return name.startswith("bench.methods.")
    if top == package:
        return True
    here, there = _folder(plug_in), _folder(name)
    if here is None or there is None or top in sys.stdlib_module_names:
        return False
    deep = plug_in.count(".") + bool(getattr(_spec(plug_in), "submodule_search_locations", None))
    above = here.parents[deep - 1] if deep else here  # on the import path
    libraries = INSTALLED & {above.name, *there.parts[len(above.parts) :]}
    return there == here or (there.is_relative_to(above) and not libraries)


def _folder(name: str) -> Path | None:
    """The folder of a module's file."""
    spec = _spec(name)
    return Path(spec.origin).parent if spec and spec.origin and spec.has_location else None


def _imported(source: str, module: str) -> Iterator[str]:
    """What a module imports. Of "from a import b", b may be a module, too."""
    spec = _spec(module)
    package = module if spec and spec.submodule_search_locations else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def _spec(name: str) -> ModuleSpec | None:
    """Where a module comes from; None where that is unknown, and of a name that is no module."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return _script() if name == "__main__" else None


@lru_cache(maxsize=1)
def _script() -> ModuleSpec | None:
    """The file that Python was started with, which may hold a method and call `bench.run`."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return importlib.util.spec_from_file_location("__main__", file) if file else None


_loaded: dict[int, tuple[ModuleSpec, str]] = {}  # by the identity of a module's spec, which a reload replaces


def _source(name: str) -> str:
    """A module's source, as it was when first asked for: a file that is edited later is not what runs here. "" where
    there is none: a notebook's cell, a compiled module, a name that is no module."""
    spec = _spec(name)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return ""
    if id(spec) not in _loaded:
        _loaded[id(spec)] = (spec, importlib.util.decode_source(Path(str(spec.origin)).read_bytes()))
    return _loaded[id(spec)][1]


def main(argv: Sequence[str]) -> int:
    if list(argv) not in (["same"], ["changed"]):
        print(__doc__, file=sys.stderr)
        return 2
    version = _confirmed()["version"] + (argv[0] == "changed")
    if argv[0] == "changed" and unconfirmed(FEATURES):
        print("If image features changed: raise FORMAT in bench/features/cache.py, or old ones are read from the cache")
    content = json.dumps({"version": version, "code": shared_code()}, indent=1)
    CONFIRMED.write_text(content + "\n", encoding="utf-8")
    print(f"numerics {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
