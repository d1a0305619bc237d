"""Coverage-guided search for bytes that the codec neither refuses nor takes in soundly: `make fuzz`.

Half of the inputs are tried as they are, and as the body of a blob whose digest is right, since no fuzzer guesses one.
Arguments are libFuzzer's: `-max_total_time=60`, `-runs=100000`, or files to try again.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["concord.sealed", "concord.wire"]):
    import torch

    from concord.consensus.algorithm import EdgeTerms, PartLayout
    from concord.errors import UpdateRefused
    from concord.wire.codec import Expectation, decode, default_max_bytes, encode
    from concord.wire.messages import Header, Stamp, Update

LAYOUT = {"message": PartLayout("float32", 3), "values": PartLayout("int8", 2)}
PARTS = {"message": torch.tensor([1.0, -2.5, 3e-30]), "values": torch.tensor([1, -1], dtype=torch.int8)}
HEADER = Header("digits", "f00d", "N1", "N2", Stamp(1, 2, 3), 40, 5, "ecl", 0.1, 0.5, 1.7e9)
EXPECTED = Expectation(
    *("digits", "f00d", "ecl", "N1", "N2", 1, EdgeTerms(0.1, 0.5), LAYOUT), max_bytes=default_max_bytes(LAYOUT)
)


def try_bytes(data: bytes) -> None:
    """Raises what libFuzzer is to report."""
    for blob in (data, data + hashlib.sha256(data).digest()):
        try:
            update = decode(blob, EXPECTED)
        except UpdateRefused:
            continue
        if decode(encode(update), EXPECTED).header != update.header:
            raise AssertionError("what was taken in does not survive the wire")
        if not all(torch.isfinite(part).all() for part in update.parts.values()):
            raise AssertionError("NaN or infinity came through")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sound = encode(Update(HEADER, PARTS))
        (Path(folder) / "sound").write_bytes(sound)
        (Path(folder) / "body").write_bytes(sound[:-32])
        files = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        atheris.Setup([*sys.argv, *([] if files else [folder])], try_bytes)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
