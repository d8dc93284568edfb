"""The chaos suite: a short job with faults, and an audit that would find what is wrong."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.chaos.audit import audit
from benchmarks.chaos.job import CLIENTS, Outcome, run_job
from benchmarks.chaos.proxy import Proxy

FAULTS = ("disk full", "link cut")
ROUNDS = 9

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    folder = tmp_path_factory.mktemp("chaos")
    return run_job(folder, ROUNDS, FAULTS, seed=1), folder


def test_a_job_comes_through_and_its_books_balance(job: tuple[Outcome, Path]) -> None:
    outcome, _ = job
    books = outcome.books
    assert outcome.completed
    assert [one.name for one in outcome.struck] == list(FAULTS)
    assert "last checkpoint kept" in outcome.struck[0].what
    assert (books.doubled, books.vanished) == ([], [])
    assert books.rounds == ROUNDS
    assert 0 < books.updates <= ROUNDS * CLIENTS
    assert books.accuracy > 0.8


def change(path: Path, **values: Callable[[Any], Any]) -> None:
    with np.load(path) as stored:
        row = dict(stored)
    row |= {key: make(row[key]) for key, make in values.items()}
    np.savez(path, **row)


def spoil_the_model(folder: Path) -> None:
    path = sorted((folder / "server").glob("0004-*"))[-1]
    change(path, model=lambda model: model + np.float32(0.01))


def lose_a_client_record(folder: Path) -> None:
    sorted((folder / "clients").glob("*.npz"))[4].unlink()


def lose_a_residual(folder: Path) -> None:
    path = sorted((folder / "clients").glob("*.npz"))[4]
    change(path, after_residual=np.zeros_like)


def return_what_was_used(folder: Path) -> None:
    path = sorted((folder / "clients").glob("*.npz"))[4]
    change(path, returned=np.ones_like)


def use_an_update_twice(folder: Path) -> None:
    path = sorted((folder / "server").glob("0004-*"))[-1]
    change(path, used=lambda used: np.concatenate([used, used[:1]]))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (spoil_the_model, "vanished"),
        (lose_a_client_record, "vanished"),
        (lose_a_residual, "vanished"),
        (return_what_was_used, "doubled"),
        (use_an_update_twice, "doubled"),
    ],
)
def test_the_audit_finds(
    spoil: Callable[[Path], None], what: str, job: tuple[Outcome, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    shutil.copytree(job[1], folder)
    assert audit(folder).balanced
    spoil(folder)
    books = audit(folder)
    assert not books.balanced
    assert getattr(books, what)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(one: socket.socket) -> None:
        with one:
            while data := one.recv(1 << 16):
                one.sendall(data)

    def accept() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def ask(proxy: Proxy, data: bytes) -> bytes:
    host, port = proxy.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        found = b""
        while piece := one.recv(1 << 16):
            found += piece
    return found


def test_the_proxy_passes_on_what_it_delays_and_loses(echo: int) -> None:
    data = np.random.default_rng(0).bytes(100_000)
    with Proxy(echo) as proxy:
        assert ask(proxy, data) == data
        proxy.delay = 0.05
        began = time.monotonic()
        assert ask(proxy, data) == data
        assert time.monotonic() - began > 0.1  # there and back
        proxy.heal()
        proxy.loss = 0.3
        assert ask(proxy, data) == data


def test_the_proxy_cuts_and_heals(echo: int) -> None:
    with Proxy(echo) as proxy:
        host, port = proxy.address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as one:
            one.sendall(b"x")
            assert one.recv(1) == b"x"
            proxy.cut()
            assert one.recv(1) == b""
        try:
            refused = ask(proxy, b"x")
        except OSError:
            refused = b""
        assert refused == b""
        proxy.heal()
        assert ask(proxy, b"x") == b"x"
