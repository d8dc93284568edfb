"""A Flower app to start from, written into a folder: ``fl-opt init``.

It is the example ``examples/pytorch``, which travels in the wheel, under the user's own name.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from fl_opt.errors import ConfigError

_EXAMPLE = "pytorch"
_SUFFIXES = (".py", ".toml")


def write_app(folder: Path) -> list[Path]:
    """Write an app whose package has the name of the folder.

    Parameters
    ----------
    folder : Path
        New, or empty. Its name becomes that of a Python package, hyphens as underscores.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ConfigError
        If the name cannot be a package's, or there is something in the folder.
    """
    package = folder.resolve().name.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package) or package in _TAKEN:
        raise ConfigError(
            f"{folder}: {package!r} cannot be the name of a package of your own: use letters, "
            "digits and underscores"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already, and not an empty folder")
    template = _template()
    written = []
    for source in sorted(path for path in template.rglob("*") if path.suffix in _SUFFIXES):
        place = source.relative_to(template).as_posix().replace(_EXAMPLE, package)
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_renamed(source.read_text(encoding="utf-8"), package))
        written.append(path)
    return written


_TAKEN = frozenset({"fl_opt", "strategies", "flwr", "torch", "numpy", "sklearn", "test"})


def _template() -> Path:
    """Return the example's folder: in an installed wheel, or in a clone of the project."""
    here = Path(__file__).resolve().parent
    for place in (here / "scaffold_app", here.parent / "examples" / _EXAMPLE):
        if (place / "pyproject.toml").is_file():
            return place
    raise ConfigError("the app to start from is missing: install fl-opt again")


def _renamed(text: str, package: str) -> str:
    text = text.replace(f"fl-opt-example-{_EXAMPLE}", package.replace("_", "-"))
    return re.sub(rf"\b{_EXAMPLE}\b", package, text)
