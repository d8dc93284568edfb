"""One fuzzing process: ``python -m benchmarks.fuzz.worker TARGET`` and libFuzzer's options."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["fl_opt"]):
    from benchmarks.fuzz.targets import TARGETS


def main() -> None:
    """Give the reader whatever libFuzzer comes up with."""
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        try:
            target.read(data)
        except target.refuses:
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
