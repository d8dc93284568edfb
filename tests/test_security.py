"""Nothing that is received is executed, and what SECURITY.md says of the sources is so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [
    path for package in ("fl_opt", "strategies") for path in (ROOT / package).rglob("*.py")
]
RUN_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
UNPACK = {"tarfile", "zipfile", "shutil.unpack_archive", "gzip", "bz2", "lzma"}
CALLS = {"eval", "exec", "compile", "__import__"}
OUR_OWN_WORKERS = "fl_opt/simulation/loading.py"  # an app, from a process to its children
IDX_FILES = "fl_opt/data/idx.py"  # a dataset on this machine's disk, read as a stream


def modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_no_module_that_runs_code_or_unpacks_archives_is_imported() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if set(modules(ast.parse(path.read_text()))) & (RUN_CODE | UNPACK)
    }
    assert found == {OUR_OWN_WORKERS, IDX_FILES}


def test_nothing_is_evaluated_and_no_pickle_is_allowed() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            assert name not in CALLS, f"{path}:{node.lineno}"
            assert name not in {"torch.load", "np.fromfile"}, f"{path}:{node.lineno}"
            if name in {"np.load", "np.save"}:
                words = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert words.get("allow_pickle") == "False", f"{path}:{node.lineno}"


def test_the_check_would_find_them() -> None:
    bad = ast.parse("import pickle\nfrom shutil import unpack_archive")
    assert set(modules(bad)) & (RUN_CODE | UNPACK) == {"pickle", "shutil.unpack_archive"}
