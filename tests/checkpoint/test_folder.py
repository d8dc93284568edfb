from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.checkpoint import Checkpoints
from fl_opt.errors import CheckpointError

ROOT = Path(__file__).parents[2]
BLOBS = {"model": b"\x00\x01" * 100, "state": b"", "an odd/name": b"x"}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoint")
    checkpoints.save(BLOBS)
    return checkpoints


def file_of(checkpoints: Checkpoints, name: str) -> Path:
    manifest = json.loads((checkpoints.folder / "manifest.json").read_text())
    return checkpoints.folder / str(manifest["blobs"][name]["file"])


def blob_files(checkpoints: Checkpoints) -> set[str]:
    return {path.name for path in checkpoints.folder.glob("blob-*")}


def test_load_returns_what_was_saved(saved: Checkpoints) -> None:
    assert saved.exists()
    assert saved.load() == BLOBS
    assert Checkpoints(saved.folder).load() == BLOBS


def test_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none")
    assert not checkpoints.exists()
    with pytest.raises(CheckpointError, match=r"none: holds no checkpoint$"):
        checkpoints.load()
    assert not checkpoints.folder.exists()


def test_the_manifest_is_as_documented(saved: Checkpoints) -> None:
    digest = hashlib.sha256(BLOBS["model"]).hexdigest()
    manifest = json.loads((saved.folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["blobs"]["model"] == {
        "file": f"blob-{digest}",
        "sha256": digest,
        "size": 200,
    }


def test_a_save_replaces_everything(saved: Checkpoints) -> None:
    saved.save({"model": b"new"})
    assert saved.load() == {"model": b"new"}
    assert blob_files(saved) == {file_of(saved, "model").name}


def test_what_is_none_stays_and_is_not_written(saved: Checkpoints) -> None:
    path = file_of(saved, "model")
    before = path.stat()
    saved.save({"model": None, "state": b"second"})
    assert saved.load() == {"model": BLOBS["model"], "state": b"second"}
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_is_the_same_is_not_written_again(saved: Checkpoints) -> None:
    before = file_of(saved, "model").stat()
    saved.save(BLOBS | {"state": b"second"})
    after = file_of(saved, "model").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert saved.load() == BLOBS | {"state": b"second"}


def test_files_of_others_are_left_alone(saved: Checkpoints) -> None:
    (saved.folder / "notes.txt").write_text("mine")
    saved.save({"model": b"new"})
    assert (saved.folder / "notes.txt").read_text() == "mine"


def test_none_needs_a_blob_in_the_last_checkpoint(saved: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="blob 'optimizer' is not in the last checkpoint"):
        saved.save({"model": b"new", "optimizer": None})
    assert saved.load() == BLOBS
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "empty").save({"model": None})


def test_none_does_not_carry_on_a_lost_blob(saved: Checkpoints) -> None:
    path = file_of(saved, "model")
    path.write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"\(blob 'model'\) is damaged: 5 bytes, not 200"):
        saved.save({"model": None})
    path.unlink()
    with pytest.raises(CheckpointError, match=r"\(blob 'model'\): No such file"):
        saved.save({"model": None})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"blob-\w{64} \(blob 'model'\): No such file or directory$"),
        (lambda p: p.write_bytes(b"abc"), r"\(blob 'model'\) is damaged: 3 bytes, not 200$"),
        (
            lambda p: p.write_bytes(b"\x01" + p.read_bytes()[1:]),
            r"\(blob 'model'\) is damaged: its SHA-256 differs",
        ),
    ],
    ids=["missing", "short", "changed"],
)
def test_a_damaged_blob_is_named_and_a_new_save_heals_it(
    saved: Checkpoints, damage: Callable[[Path], object], message: str
) -> None:
    damage(file_of(saved, "model"))
    with pytest.raises(CheckpointError, match=message):
        saved.load()
    saved.save(BLOBS)
    assert saved.load() == BLOBS


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not the manifest of a checkpoint"),
        ("[]", "not the manifest of a checkpoint"),
        ('{"format": 1, "blobs": {"a": {"file": "blob-1"}}}', "not the manifest"),
        (
            '{"format": 1, "blobs": {"a": {"file": "../x", "sha256": "", "size": 0}}}',
            "not the manifest",
        ),
        ('{"format": 2, "blobs": {}}', "format 2 is not known; this release reads 1"),
    ],
)
def test_a_damaged_manifest_is_named(saved: Checkpoints, manifest: str, message: str) -> None:
    (saved.folder / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=rf"manifest\.json: .*{message}"):
        saved.load()
    with pytest.raises(CheckpointError, match=message):
        saved.save({"model": None})
    saved.save(BLOBS)
    assert saved.load() == BLOBS


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/lock: (Not a directory|File exists)"):
        Checkpoints(tmp_path / "file").save(BLOBS)


def test_a_failed_save_leaves_the_last_checkpoint(saved: Checkpoints) -> None:
    digest = hashlib.sha256(b"later").hexdigest()
    (saved.folder / f"blob-{digest}.new").mkdir()  # in the way of the draft
    with pytest.raises(CheckpointError, match="Is a directory"):
        saved.save({"model": b"new", "state": b"later"})
    assert saved.load() == BLOBS


def test_one_writer_at_a_time(saved: Checkpoints) -> None:
    other = Checkpoints(saved.folder)
    with saved:
        saved.save({"model": b"mine"})
        with pytest.raises(CheckpointError, match="another run writes its checkpoints here"):
            other.save({"model": b"theirs"})
        with pytest.raises(CheckpointError, match="another run"), other:
            pass
        assert other.load() == {"model": b"mine"}
        saved.save({"model": None})
    other.save({"model": b"theirs"})
    assert saved.load() == {"model": b"theirs"}


def test_the_lock_keeps_out_other_processes_and_ends_with_its_own(saved: Checkpoints) -> None:
    code = (
        "import sys, fl_opt.checkpoint as c\n"
        "with c.Checkpoints(sys.argv[1]):\n    print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(saved.folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(CheckpointError, match="another run"):
            saved.save({"model": b"mine"})
        process.kill()
        process.wait()
        saved.save({"model": b"mine"})


def test_killed_at_any_moment_the_old_checkpoint_is_there_or_the_new(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.killing", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines, generations = map(int, done.stdout.split())
    assert lines > 50
    assert generations > 10


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.binary(max_size=4))),
)
def test_any_history_of_saves(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, bytes | None]]
) -> None:
    checkpoints = Checkpoints(tmp_path_factory.mktemp("history"))
    model: dict[str, bytes] = {}
    for blobs in history:
        kept = {name for name, data in blobs.items() if data is None}
        if kept <= set(model):
            checkpoints.save(blobs)
            model = {
                name: model[name] if data is None else data for name, data in blobs.items()
            }
            assert len(blob_files(checkpoints)) == len(set(model.values()))
        else:
            with pytest.raises(CheckpointError):
                checkpoints.save(blobs)
        assert not checkpoints.exists() or checkpoints.load() == model
