"""Pages: links lead somewhere, the code in them runs, and the site has them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    ]
)
RUN = [DOCS / "quickstart.md", *sorted((DOCS / "how-to").glob("*.md"))]
"""Pages whose code can be run as it stands."""
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)|!\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for match in _LINK.finditer(text):
        yield match[1] or match[2]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    local = [link for link in links(page) if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


def code_blocks(page: Path) -> list[str]:
    return [str(code) for code in _CODE.findall(page.read_text())]


def blocks() -> list[tuple[str, str]]:
    found = [(name(page), code) for page in RUN for code in code_blocks(page)]
    return [(f"{page}, block {number}", code) for number, (page, code) in enumerate(found)]


@pytest.mark.parametrize(("place", "code"), blocks(), ids=[place for place, _ in blocks()])
def test_code_in_pages_runs(place: str, code: str) -> None:
    exec(compile(code, place, "exec"), {"__name__": "page"})  # noqa: S102 -- our own pages


def test_the_site_has_every_page() -> None:
    listed = re.findall(
        r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )
