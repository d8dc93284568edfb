"""Inspection: every byte of a payload is accounted for, and explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.codecs import build_codec
from fl_opt.codecs.inspect import inspect_payload
from fl_opt.errors import PayloadError
from fl_opt.exchange.blob import encode_blob
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, Writer, write_varint
from tests.fixtures.make_payloads import PATH
from tests.fixtures.vectors import patterned_vector

GOLDEN = json.loads(PATH.read_text())


@pytest.mark.parametrize("spec", GOLDEN)
def test_sections_cover_every_golden_payload(spec: str) -> None:
    payload = bytes.fromhex(GOLDEN[spec])
    sections = inspect_payload(payload)
    assert sum(section.num_bytes for section in sections) == len(payload)
    assert sections[0].content == "format 1, update, checksum fits"
    assert sections[1].content == "300 entries"


def test_sections_say_what_they_hold() -> None:
    payload = build_codec("topk(0.1) | ternary | rice").encode(patterned_vector(300))
    found = {section.name: section.content for section in inspect_payload(payload)}
    assert found["positions"].startswith("30 by rice, ")
    assert found["levels"] == "Signs, 1 bits a code"
    assert found["codes"].startswith("30 by pack, ")


def test_transforms_rules_and_exact_arrays_are_unfolded() -> None:
    layout = ((15, 16), (60,))
    codec = build_codec("powersgd(1) | uniform(8); *b: fp32")
    vector = patterned_vector(300)
    payload = codec.encode(vector, layout=layout, names=("a", "b"))
    sections = inspect_payload(payload)
    assert sum(section.num_bytes for section in sections) == len(payload)
    assert "15x16 at rank 1" in {section.content for section in sections}
    assert "2 groups of arrays" in {section.content for section in sections}

    model: dict[str, NDArray[Any]] = {"w": vector, "steps": np.arange(100)}
    spec = ParamSpec.of(model)
    blob = encode_blob(spec, build_codec("none"), vector, {"steps": model["steps"]}, seed=0)
    sections = inspect_payload(blob)
    assert sum(section.num_bytes for section in sections) == len(blob)
    assert sections[-1].name == "exact arrays"


@pytest.mark.parametrize("damage", [b"", b"x", b"flo"])
def test_what_is_no_payload_is_refused(damage: bytes) -> None:
    with pytest.raises(PayloadError):
        inspect_payload(damage)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x05\x11\x01\x01\x00\x05" * 5000, "unknown method 17"),
        (b"\x05\x10\x01\x00\x05" * 5000, "unknown method 16"),
        # 2^39 gaps of no bits among 2^40 entries
        (write_varint(1 << 40) + b"\x02" + write_varint(1 << 39) + b"\x00", "is allowed"),
    ],
    ids=["nested rules", "nested low rank", "huge"],
)
def test_what_would_nest_or_allocate_without_end_is_refused(body: bytes, reason: str) -> None:
    writer = Writer()
    writer.raw(body)
    with pytest.raises(PayloadError, match=reason):
        inspect_payload(writer.to_frame(FrameKind.UPDATE))


def test_command_prints_a_table_or_json(tmp_path: Path) -> None:
    file = tmp_path / "payload"
    payload = build_codec("stc").encode(patterned_vector(300))
    file.write_bytes(payload)
    runner = CliRunner()
    table = runner.invoke(app, ["inspect", str(file)])
    assert table.exit_code == 0
    assert "positions" in table.output
    rows = json.loads(runner.invoke(app, ["inspect", "--json", str(file)]).output)
    assert sum(row["bytes"] for row in rows) == len(payload)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"PK\3\4", "not an fl-opt payload")]
)
def test_command_fails_in_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "payload"
    if content is not None:
        file.write_bytes(content)
    result = CliRunner().invoke(app, ["inspect", str(file)])
    assert result.exit_code == 2
    assert reason in result.output
    assert result.output.count("\n") == 1
