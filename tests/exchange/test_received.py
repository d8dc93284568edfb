"""A client never trains from another model than the server says: it refuses and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.codecs import build_codec, decode
from fl_opt.errors import ExchangeError, PayloadError
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink.base import NOTHING, SEED, Delivery, Kind, exact_frame
from fl_opt.exchange.received import Received, ReferenceNeededError, receive
from fl_opt.exchange.reference import Reference
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, Writer
from tests.exchange.ends import Meta, meta_of, same_bits

STEP = 2.0**-20
PLAIN: dict[str, NDArray[Any]] = {"weight": np.linspace(-1, 1, 30).astype(np.float32)}
MIXED: dict[str, NDArray[Any]] = {**PLAIN, "steps": np.array([1, 2])}


def delta_frame(seed: int, spec: ParamSpec) -> bytes:
    values = np.random.default_rng(seed).normal(0, 0.01, spec.size).astype(np.float32)
    return build_codec("int8").encode(values)


class Case:
    """A client that holds a model, and a message that moves it."""

    def __init__(self, model: dict[str, NDArray[Any]], frames: int = 1) -> None:
        self.model = model
        self.spec = ParamSpec.of(model)
        self.held = Reference.of(self.spec, model, STEP)
        self.state = ClientState(self.spec, self.held)
        self.exact = {name: array + 1 for name, array in self.held.exact.items()}
        self.tail = exact_frame(self.spec, self.exact)
        self.frames = [delta_frame(n, self.spec) for n in range(frames)]
        self.payload = b"".join(self.frames) + self.tail
        self.goal = self._moved()

    def _moved(self) -> Reference:
        updates = [decode(frame, size=self.spec.size) for frame in self.frames]
        return self.held.moved(updates, self.exact, STEP)

    def meta(self, base: str | None = None, **others: Any) -> Meta:
        name = self.held.fingerprint if base is None else base
        delivery = Delivery.of(Kind.DELTA, name, self.goal.fingerprint, self.payload)
        return meta_of(self.spec, delivery, version=3, step=STEP, **others)

    def receive(
        self, payload: bytes | None = None, meta: Meta | None = None, **others: Any
    ) -> Received:
        return receive(
            self.payload if payload is None else payload,
            meta or self.meta(**others),
            self.state,
            lambda: self.model,
        )


@pytest.mark.parametrize("model", [PLAIN, MIXED])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_chain_of_updates_moves_the_reference(
    model: dict[str, NDArray[Any]], frames: int
) -> None:
    case = Case(model, frames)
    received = case.receive(update=12, acknowledged=11)
    assert same_bits(received.reference, case.goal)
    assert (received.version, received.update, received.acknowledged) == (3, 12, 11)
    assert received.keep
    assert same_bits(case.held, Reference.of(case.spec, model, STEP))  # was only read


def test_without_a_payload_the_reference_stays() -> None:
    case = Case(MIXED)
    meta = case.meta()
    meta["reference"] = case.held.fingerprint
    assert same_bits(case.receive(b"", meta).reference, case.held)


def test_the_description_is_needed_once() -> None:
    case = Case(PLAIN)
    meta = case.meta()
    del meta["model"]
    assert case.receive(meta=meta).spec == case.spec
    with pytest.raises(ReferenceNeededError, match=f"model {case.spec.fingerprint} is not"):
        receive(case.payload, meta, ClientState(), None)


def test_a_client_builds_the_first_model() -> None:
    case = Case(MIXED)
    meta = case.meta(base=SEED)
    received = receive(case.payload, meta, ClientState(), lambda: case.model)
    assert same_bits(received.reference, case.goal)


def test_names_of_the_first_model_do_not_matter() -> None:
    case = Case(MIXED)
    renamed = dict(zip("ab", case.model.values(), strict=True))
    received = receive(case.payload, case.meta(base=SEED), ClientState(), lambda: renamed)
    assert same_bits(received.reference, case.goal)


class TestReferencesThatAreNeeded:
    def test_another_one_is_held(self) -> None:
        case = Case(PLAIN)
        with pytest.raises(ReferenceNeededError, match=f"holds {case.held.fingerprint}, not 0"):
            case.receive(base="0123456789abcdef")

    def test_none_is_held(self) -> None:
        case = Case(PLAIN)
        with pytest.raises(ReferenceNeededError, match="this client holds nothing"):
            receive(case.payload, case.meta(), ClientState(), lambda: case.model)

    def test_that_of_another_model_is_held(self) -> None:
        case = Case(PLAIN)
        state = ClientState(ParamSpec.of({"w": PLAIN["weight"]}), case.held)
        with pytest.raises(ReferenceNeededError, match="this client holds"):
            receive(case.payload, case.meta(), state, None)

    @pytest.mark.parametrize("start", ["held", SEED, NOTHING])
    def test_something_else_comes_out_than_the_server_says(self, start: str) -> None:
        case = Case(MIXED)
        meta = case.meta(base=None if start == "held" else start)
        meta["reference"] = "0123456789abcdef"
        with pytest.raises(
            ReferenceNeededError, match=r"has fingerprint .*, the server's 0123"
        ):
            case.receive(meta=meta)

    @pytest.mark.parametrize("change", [{"step": 0.0}, {"step": 2.0**-10}])
    def test_another_lattice(self, change: dict[str, float]) -> None:
        case = Case(PLAIN)
        with pytest.raises(ReferenceNeededError, match="has fingerprint"):
            case.receive(meta={**case.meta(), **change})

    def test_the_first_model_cannot_be_built(self) -> None:
        case = Case(PLAIN)
        with pytest.raises(ReferenceNeededError, match="cannot build the first model"):
            receive(case.payload, case.meta(base=SEED), ClientState(), None)

    @pytest.mark.parametrize(
        ("built", "reason"),
        [
            ({}, "built here has 0 arrays, not 1"),
            ({**PLAIN, "more": np.zeros(1)}, "built here has 2 arrays, not 1"),
            ({"weight": np.zeros(31, np.float32)}, r"built here: array 'weight' has shape"),
            ({"weight": PLAIN["weight"] + 1}, "has fingerprint"),
        ],
    )
    def test_the_first_model_is_another(
        self, built: dict[str, NDArray[Any]], reason: str
    ) -> None:
        case = Case(PLAIN)
        with pytest.raises(ReferenceNeededError, match=reason):
            receive(case.payload, case.meta(base=SEED), ClientState(), lambda: built)


class TestPayloads:
    def test_damaged_anywhere(self) -> None:
        case = Case(MIXED, frames=2)
        for position in range(len(case.payload)):
            damaged = bytearray(case.payload)
            damaged[position] ^= 0x10
            with pytest.raises(PayloadError):
                case.receive(bytes(damaged))

    def test_cut_off_anywhere(self) -> None:
        case = Case(MIXED, frames=2)
        for end in range(1, len(case.payload)):
            with pytest.raises((PayloadError, ReferenceNeededError)):
                case.receive(case.payload[:end])

    def test_a_frame_twice_or_missing(self) -> None:
        case = Case(PLAIN, frames=2)
        for payload in (case.payload + case.frames[1], case.frames[0]):
            with pytest.raises(ReferenceNeededError, match="has fingerprint"):
                case.receive(payload)

    def test_exact_arrays_are_missing(self) -> None:
        case = Case(MIXED)
        with pytest.raises(PayloadError, match="lacks the exact arrays"):
            case.receive(case.frames[0])

    def test_exact_arrays_that_the_model_has_not(self) -> None:
        case = Case(PLAIN)
        with pytest.raises(PayloadError, match="holds exact arrays, the model has none"):
            case.receive(case.payload + Case(MIXED).tail)

    def test_exact_arrays_twice_or_before_an_update(self) -> None:
        case = Case(MIXED)
        for payload in (case.payload + case.tail, case.tail + case.payload):
            with pytest.raises(PayloadError, match="goes on behind the exact arrays"):
                case.receive(payload)

    def test_exact_arrays_of_another_size(self) -> None:
        case = Case(MIXED)
        writer = Writer()
        writer.byte(0)
        writer.raw(bytes(17))
        with pytest.raises(PayloadError, match="hold 17 bytes, expected 16"):
            case.receive(case.frames[0] + writer.to_frame(FrameKind.EXACT))

    def test_an_update_of_another_size(self) -> None:
        case = Case(PLAIN)
        other = build_codec("int8").encode(np.ones(31, np.float32))
        with pytest.raises(PayloadError, match="31"):
            case.receive(other)

    def test_more_frames_than_a_blob_may_have(self) -> None:
        case = Case(PLAIN)
        with pytest.raises(PayloadError, match="more than 256 frames"):
            case.receive(case.payload * 257)


class TestMeta:
    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("version", -1, "model version -1 is negative"),
            ("version", 1.0, r"'version' = 1\.0 is not int"),
            ("step", float("inf"), "step = inf is not a finite number from 0 up"),
            ("step", -1e-9, "step = -1e-09 is not"),
            ("step", float("nan"), "step = nan is not"),
            ("step", 0, "'step' = 0 is not float"),
            ("base", 3, "'base' = 3 is not str"),
            ("reference", b"x", "'reference' = b'x' is not str"),
            ("keep", 1, "'keep' = 1 is not bool"),
            ("update", True, "'update' = True is not int"),
            ("acknowledged", "1", "'acknowledged' = '1' is not int"),
            ("spec", 1, "'spec' = 1 is not str"),
            ("model", "x", "'model' = 'x' is not bytes"),
        ],
    )
    def test_entries_out_of_range_or_of_another_type(
        self, key: str, value: Any, reason: str
    ) -> None:
        case = Case(PLAIN)
        with pytest.raises(ExchangeError, match=reason):
            case.receive(meta={**case.meta(), key: value})

    @pytest.mark.parametrize("key", ["version", "step", "base", "spec", "reference", "keep"])
    def test_entries_that_are_missing(self, key: str) -> None:
        case = Case(PLAIN)
        meta = case.meta()
        del meta[key]
        with pytest.raises(ExchangeError, match=f"'{key}' = None"):
            case.receive(meta=meta)

    def test_a_description_that_is_not_the_one_named(self) -> None:
        case = Case(PLAIN)
        for description in (ParamSpec.of(MIXED).to_bytes(), b"[[", b"[]"):
            with pytest.raises(PayloadError, match="malformed model description"):
                case.receive(model=description)
