from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.data.cache import ArrayCache, Contents

ROOT = Path(__file__).parents[2]
MB = 1_000_000


class Maker:
    """Counts how often it is asked."""

    def __init__(self, size: int = 1000, value: int = 7) -> None:
        self.calls = 0
        self.array: NDArray[np.uint8] = np.full(size, value, np.uint8)

    def __call__(self) -> Contents:
        self.calls += 1
        arrays: dict[str, NDArray[Any]] = {
            "pixels": self.array,
            "rows": np.arange(6).reshape(2, 3),
            "none": np.empty((0, 4), np.float32),
        }
        return Contents(arrays, {"kind": "image", "shape": [1, 2]})


def cache(folder: Path, limit: int = 10 * MB) -> ArrayCache:
    return ArrayCache(folder, limit)


def entries(folder: Path) -> list[str]:
    """Everything in the folder of a cache, without the hashes."""
    return sorted(path.name.rpartition("-")[0] for path in folder.iterdir())


def entry_of(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def test_what_comes_back_is_what_was_made(tmp_path: Path) -> None:
    make, expected = Maker(), Maker()()
    for _ in range(3):
        contents = cache(tmp_path / "new").get("data", {"seed": 1, "shape": (2, 3)}, make)
        assert contents.facts == expected.facts
        assert contents.arrays.keys() == expected.arrays.keys()
        for name, array in expected.arrays.items():
            found = contents.arrays[name]
            assert isinstance(found, np.memmap)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
    assert make.calls == 1
    assert entries(tmp_path / "new") == ["data"]


def test_another_origin_is_another_entry(tmp_path: Path) -> None:
    origins: list[dict[str, Any]] = [{"a": 1}, {"a": 2}, {"a": 1, "b": None}, {"a": [1]}]
    for value, origin in enumerate(origins):
        make = Maker(value=value)
        assert cache(tmp_path).get("data", origin, make).arrays["pixels"][0] == value
        assert make.calls == 1
    again = Maker(value=9)
    assert cache(tmp_path).get("data", {"a": 2}, again).arrays["pixels"][0] == 1
    assert again.calls == 0


def test_without_a_limit_there_is_no_cache(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(2):
        assert cache(tmp_path, limit=0).get("data", {}, make).arrays["pixels"] is make.array
    assert make.calls == 2
    assert list(tmp_path.iterdir()) == []


def test_writing_to_what_is_mapped_changes_no_file(tmp_path: Path) -> None:
    cache(tmp_path).get("data", {}, Maker()).arrays["pixels"][:] = 0
    assert cache(tmp_path).get("data", {}, Maker()).arrays["pixels"].tolist() == [7] * 1000


def truncate(entry: Path) -> None:
    os.truncate(entry / "pixels.npy", 500)


def lengthen(entry: Path) -> None:
    with (entry / "rows.npy").open("ab") as file:
        file.write(b"0")


def remove_array(entry: Path) -> None:
    (entry / "none.npy").unlink()


def remove_manifest(entry: Path) -> None:
    (entry / "manifest.json").unlink()


def cut_manifest(entry: Path) -> None:
    text = (entry / "manifest.json").read_text()
    (entry / "manifest.json").write_text(text[:100])


def other_type(entry: Path) -> None:
    np.save(entry / "pixels.npy", np.zeros(1000, np.int8))


def other_shape(entry: Path) -> None:
    np.save(entry / "rows.npy", np.zeros((3, 2), np.int64))


def pickled(entry: Path) -> None:
    np.save(entry / "rows.npy", np.array([{}], object), allow_pickle=True)


def other_format(entry: Path) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


def other_origin(entry: Path) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "made-from": {"seed": 2}}))


def no_mapping(entry: Path) -> None:
    (entry / "manifest.json").write_text("[1]")


@pytest.mark.parametrize(
    "damage",
    [
        truncate, lengthen, remove_array, remove_manifest, cut_manifest, other_type,
        other_shape, pickled, other_format, other_origin, no_mapping,
    ],
)  # fmt: skip
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    cache(tmp_path).get("data", {"seed": 1}, Maker())
    damage(entry_of(tmp_path))
    for calls in (1, 0):
        make = Maker()
        found = cache(tmp_path).get("data", {"seed": 1}, make).arrays
        assert make.calls == calls
        assert found["pixels"].tolist() == [7] * 1000
        assert found["rows"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert entries(tmp_path) == ["data"]


def test_a_full_cache_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    small = cache(tmp_path, limit=2_500_000)
    for name in ("one", "two"):
        small.get(name, {}, Maker(MB))
    for age, name in enumerate(("two", "one")):
        manifest = next(tmp_path.glob(f"{name}-*")) / "manifest.json"
        os.utime(manifest, (1000 + age, 1000 + age))
    mapped = small.get("two", {}, Maker(MB)).arrays["pixels"]  # now the last one used
    small.get("three", {}, Maker(MB))
    assert entries(tmp_path) == ["three", "two"]
    small.get("four", {}, Maker(2 * MB))
    assert entries(tmp_path) == ["four"]
    assert mapped.sum() == 7 * MB  # still good for who has it


def test_what_is_larger_than_the_cache_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker(MB)
    for _ in range(2):
        assert cache(tmp_path, limit=MB // 2).get("data", {}, make).arrays["pixels"][0] == 7
    assert make.calls == 2
    assert list(tmp_path.iterdir()) == []
    assert "takes 1 MB, more than data.cache-limit-mb" in caplog.text


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    make = Maker()
    for _ in range(3):
        found = cache(tmp_path / "file" / "cache").get("data", {}, make)
        assert found.arrays["pixels"] is make.array
    assert make.calls == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"cannot be kept in {tmp_path}/file/cache" in record.getMessage()


def test_a_full_disk_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert cache(tmp_path).get("data", {}, Maker()).arrays["pixels"][0] == 7
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_making_raises_is_passed_on_and_frees_the_lock(tmp_path: Path) -> None:
    def fail() -> Contents:
        raise OSError("no such dataset")

    for _ in range(2):
        with pytest.raises(OSError, match="no such dataset"):
            cache(tmp_path).get("data", {}, fail)
    assert cache(tmp_path).get("data", {}, Maker()).arrays["pixels"][0] == 7


def test_many_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    begin = threading.Barrier(8)
    makers = [Maker(value=i) for i in range(8)]

    def ask(make: Maker) -> int:
        begin.wait()
        return int(cache(tmp_path).get("data", {}, make).arrays["pixels"].sum())

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, makers))
    assert sum(make.calls for make in makers) == 1
    assert len(found) == 1
    assert entries(tmp_path) == ["data"]


def test_a_maker_that_is_killed_blocks_nobody(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from fl_opt.data import cache\n"
        "def write(*_):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(600)\n"
        "cache._write = write\n"
        "made = cache.Contents({}, {})\n"
        "cache.ArrayCache(Path(sys.argv[1]), 10**7).get('data', {}, lambda: made)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.glob("data-*.tmp"))) == 1
        other = cache(tmp_path).get("other", {}, Maker())  # is in nobody's way
        assert len(list(tmp_path.glob("data-*.tmp"))) == 1
        process.kill()
    make = Maker()
    assert cache(tmp_path).get("data", {}, make).arrays["pixels"][0] == 7
    assert make.calls == 1
    assert entries(tmp_path) == ["data", "other"]
    assert other.arrays["pixels"][0] == 7


def test_what_the_dead_left_is_cleared_away(tmp_path: Path) -> None:
    cache(tmp_path).get("data", {}, Maker())
    shutil.copytree(entry_of(tmp_path), tmp_path / "gone-0123.4567.tmp")
    cache(tmp_path).get("other", {}, Maker())
    assert entries(tmp_path) == ["data", "other"]
