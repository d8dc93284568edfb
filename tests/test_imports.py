"""The import rule: downwards only, and no heavy library before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import fl_opt

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("fl_opt.errors", "fl_opt.profiles"),
    (
        "fl_opt.params",
        "fl_opt.config",
        "fl_opt.wire",
        "fl_opt.seeds",
        "fl_opt.spans",
        "fl_opt.checkpoint",
    ),
    ("fl_opt.cache", "fl_opt.run_config"),
    ("fl_opt.codecs",),
    ("fl_opt.exchange",),
    ("fl_opt.data", "fl_opt.profiling", "fl_opt.simulation"),
    ("fl_opt.models", "fl_opt.training"),
    ("fl_opt.client", "strategies", "fl_opt.reporting"),
    (
        "fl_opt.server_app",
        "fl_opt.supernode",
        "fl_opt.doctor",
        "fl_opt.scaffold",
        "fl_opt.deployment",
    ),
    ("fl_opt.local_run",),
    ("fl_opt.cli",),
    ("run_simulation",),
)
"""From the ground up; a part imports from lower layers only, not from its own."""
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
OPEN_TO_ALL = {"fl_opt.__version__"}
"""What modules may take from the package itself; its other names are for users."""


def modules() -> dict[str, Path]:
    """All modules of the project by name."""
    paths = [*ROOT.glob("fl_opt/**/*.py"), *ROOT.glob("strategies/**/*.py")]
    paths.append(ROOT / "run_simulation.py")
    names = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def part_of(module: str) -> str | None:
    """Return the part of the project a module belongs to; None for other packages."""
    top, *rest = module.split(".")
    if top in ("strategies", "run_simulation"):
        return top
    if top == "fl_opt":
        return f"fl_opt.{rest[0]}" if rest else top
    return None


def imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything imported, also inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(name: str, path: Path) -> list[str]:
    """Return what a module imports against the rule."""
    own = part_of(name)
    assert own in LAYER_OF, f"{own}: a new part of the project needs a layer"
    found = []
    for line, imported in imports(name, path):
        other = part_of(imported)
        if other in (None, own) or imported in OPEN_TO_ALL:
            continue
        if other not in LAYER_OF or LAYER_OF[other] >= LAYER_OF[own]:
            found.append(f"line {line} of {name} imports {imported}")
    return found


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"fl_opt"}))
def test_imports_go_downwards_only(name: str) -> None:
    assert violations(name, MODULES[name]) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fl_opt.wire", "from fl_opt.codecs import decode"),
        ("fl_opt.wire", "import fl_opt.params"),
        ("fl_opt.data.digits", "from fl_opt import models"),
        ("fl_opt.data.digits", "from ..training import train"),
        ("fl_opt.training.trainer", "import fl_opt.models.mlp"),
        ("fl_opt.data.digits", "from fl_opt import decode"),
        ("fl_opt.data.digits", "def f():\n    import strategies.base"),
        ("strategies.base", "from fl_opt.client.mod import compression_mod"),
    ],
)
def test_the_rule_finds_what_it_forbids(name: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert len(violations(name, path)) == 1


def test_the_rule_allows_the_way_down(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import torch\nfrom fl_opt import __version__, wire\nfrom fl_opt.codecs import decode\n"
        "from . import mod\nfrom .session import Session\n"
    )
    assert violations("fl_opt.client.module", path) == []


def test_the_package_itself_imports_for_type_checkers_only() -> None:
    tree = ast.parse((ROOT / "fl_opt" / "__init__.py").read_text())
    modules = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert modules == ["__future__", "importlib", "typing"]
    assert not any(isinstance(node, ast.Import) for node in tree.body)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["fl_opt", "fl_opt.codecs", "fl_opt.wire"])
def test_light_modules_load_neither_torch_nor_flwr(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'flwr'}} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_a_codec_needs_neither_torch_nor_flwr() -> None:
    code = (
        "import sys, numpy, fl_opt\n"
        "codec = fl_opt.build_codec('topk(0.5) | ternary')\n"
        "payload = codec.encode(numpy.ones(4, 'f4'), seed=1)\n"
        "print(fl_opt.decode(payload, size=4).to_dense().sum())\n"
        "print(sorted({'torch', 'flwr'} & set(sys.modules)))"
    )
    assert run_python(code).splitlines() == ["2.0", "[]"]


def test_every_public_name_is_there() -> None:
    for name in fl_opt.__all__:
        assert getattr(fl_opt, name) is not None
        assert name in dir(fl_opt)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fl_opt' has no attribute 'decoed'"):
        fl_opt.decoed  # noqa: B018
