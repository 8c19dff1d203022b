"""What docs/security.md promises: no pickles, no network unasked, no control characters from files on a terminal."""

from __future__ import annotations

import ast
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import yaml

from bench.cli import main
from bench.clip.backbone import load_backbone
from bench.datasets import hub
from bench.datasets.transfer import download
from bench.errors import UserError, printable
from bench.weights import to_download

ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]

# ---- no pickles ----------------------------------------------------------------------------------------------

PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
WORKERS = {"Parallel", "delayed", "parallel_config"}  # of joblib: what a run's own processes tell each other
UNPICKLES = {"read_pickle", "unsafe_load", "full_load"}  # of pandas and PyYAML


def unsafe(tree: ast.AST) -> Iterator[str]:
    """What in a module's source could read a pickle, with its line."""
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            own = node.module == "joblib" and {alias.name for alias in node.names} <= WORKERS
            modules = [] if own else [node.module or ""]
            if node.module == "torch" and any(alias.name == "load" for alias in node.names):
                yield f"{node.lineno}: torch's load by itself"
        yield from (f"{node.lineno}: import of {m}" for m in modules if m.partition(".")[0] in PICKLING)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name.rpartition(".")[2] in UNPICKLES or name == "torch.jit.load":
                yield f"{node.lineno}: {name}"
            if name == "torch.load" and given.get("weights_only") != "True":
                yield f"{node.lineno}: torch.load without weights_only=True"
            if given.get("allow_pickle", "False") != "False":
                yield f"{node.lineno}: allow_pickle"


def test_no_module_reads_pickles() -> None:
    files = [file for part in ("bench", "methods", "datasets", "reports") for file in (ROOT / part).rglob("*.py")]
    assert len(files) > 80
    found = {str(f.relative_to(ROOT)): list(unsafe(ast.parse(f.read_text(encoding="utf-8")))) for f in files}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import pickle", True),
        ("from joblib import load", True),
        ("from joblib import Parallel, load", True),
        ("from joblib import Parallel, delayed", False),
        ("torch.load(p)", True),
        ("from torch import load", True),
        ("torch.load(p, weights_only=False)", True),
        ("torch.load(p, weights_only=True)", False),
        ("np.load(p, allow_pickle=True)", True),
        ("np.load(p)", False),
        ("pd.read_pickle(p)", True),
        ("yaml.unsafe_load(t)", True),
        ("yaml.safe_load(t)", False),
    ],
)
def test_the_audit_knows_a_pickle_when_it_sees_one(line: str, found: bool) -> None:
    assert bool(list(unsafe(ast.parse(line)))) is found


@pytest.mark.parametrize("name", ["LSUN", "LSUNClass"])
def test_torchvision_s_class_that_unpickles_unchecked_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"torchvision's {name} reads a pickle, which can run code"):
        hub.fetch(tmp_path, {"kind": "torchvision", "class": name})


def test_the_dependencies_are_audited_at_every_change_of_their_list() -> None:
    text = (ROOT / ".github/workflows/audit.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["audit"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert any("uv pip compile --all-extras" in command for command in commands)
    assert "pip_audit" in commands[-1]
    assert all("continue-on-error" not in step for step in steps)


# ---- no network unasked --------------------------------------------------------------------------------------


def test_tests_reach_this_machine_alone() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())  # loopback is open
    with socket.socket() as other, pytest.raises(OSError, match=r"the tests have no network: 192\.0\.2\.1"):
        other.connect(("192.0.2.1", 80))  # an address of documentation (RFC 5737), nobody's
    with socket.socket(type=socket.SOCK_DGRAM) as other, pytest.raises(OSError, match="no network"):
        other.sendto(b"", ("192.0.2.1", 53))
    with pytest.raises(socket.gaierror, match=r"the tests have no network: example\.org"):
        socket.create_connection(("example.org", 80), timeout=1)
    assert socket.getaddrinfo("127.0.0.1", 80)


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
def test_unix_sockets_are_open_to_tests() -> None:
    one, other = socket.socketpair()
    one.send(b"x")
    assert other.recv(1) == b"x"
    one.close()
    other.close()


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("something was asked of the network")


def test_hf_hub_offline_stops_our_own_downloads_before_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("requests.get", forbidden)
    with pytest.raises(UserError, match=r"9/x\.zip: not fetched, because HF_HUB_OFFLINE is set; unset"):
        download("http://127.0.0.1:9/x.zip", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


@pytest.fixture
def nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(open_clip, "create_model", forbidden)
    monkeypatch.setattr(open_clip, "get_model_config", forbidden)  # of hf-hub: models it asks the network


@pytest.mark.parametrize(
    ("backbone", "source"),
    [
        ("ViT-B-16", "huggingface.co/timm/vit_base_patch16_clip_224.openai"),
        ("hf-hub:org/model", "huggingface.co/org/model"),
    ],
)
def test_a_dry_run_says_what_it_would_download_and_downloads_nothing(
    tiny: Any, tmp_path: Path, capsys: Capture, nothing_cached: None, backbone: str, source: str
) -> None:
    command = tiny.command(tmp_path / "runs", "--dry-run", "--backbone", backbone)
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --backbone {backbone}: its weights are not on this machine")
    assert source in line and "keys depend on them" in line


def test_hf_hub_offline_names_missing_weights(monkeypatch: pytest.MonkeyPatch, nothing_cached: None) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"RN50: its weights are not on this machine.*HF_HUB_OFFLINE is set"):
        load_backbone("RN50")


def test_weights_in_the_cache_are_not_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def cached(repository: str, name: str, **_: Any) -> str | None:
        asked.append((repository, name))
        return "/there" if name == "open_clip_model.safetensors" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert to_download("hf-hub:org/model", None) == ""
    assert asked[0] == ("org/model", "open_clip_model.safetensors")
    assert to_download("ViT-B-16", "/some/file.safetensors") == ""  # a file is here


# ---- terminals -----------------------------------------------------------------------------------------------


def test_control_characters_are_shown_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\x07\x9b\u202ec\r") == "a\\x1b[2Jb\\x07\\x9b\\u202ec\\r"
    assert printable("größer → 3 °\n") == "größer → 3 °\n"


def test_a_refused_file_s_name_and_content_do_not_steer_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    suite = tmp_path / "a\x1b[31mb.yaml"
    suite.write_text("title: X\ntasks: 3\n", encoding="utf-8")
    assert main(["run", "--suite", str(suite), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "a\\x1b[31mb.yaml" in said
    assert "\x1b" not in said
