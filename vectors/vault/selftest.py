#!/usr/bin/env python3
"""Runs the independent reader over every vector; `selftest: N passed, M failed`.

Also holds the ciphers against the published answers of their standards.
"""

import base64
import hashlib
import json
import struct
import sys
import tempfile
from pathlib import Path

import aegis
import argon2
from reader import Reader, dump
from vault import SLOT, Refused

HERE = Path(__file__).parent


def expand(packed, edits, path):
    """A `.slots` file and its edits as a volume."""
    (length,) = struct.unpack("<I", packed[:4])
    original = bytearray(length * SLOT)
    for at in range(4, len(packed), 4 + SLOT):
        (slot,) = struct.unpack("<I", packed[at : at + 4])
        original[slot * SLOT : (slot + 1) * SLOT] = packed[at + 4 : at + 4 + SLOT]
    data = bytearray(original)
    for edit in edits:
        at = edit.get("at")
        if "xor" in edit:
            data[at] ^= edit["xor"]
        elif "bytes" in edit:
            new = base64.b64decode(edit["bytes"])
            data[at : at + len(new)] = new
        elif "zeros" in edit:
            data[at : at + edit["zeros"]] = bytes(edit["zeros"])
        elif "from" in edit:
            source, count = edit["from"], edit["length"]
            data[at : at + count] = original[source : source + count]
        else:
            del data[edit["length"] :]
    path.write_bytes(data)


class Run:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.manifest = json.loads((HERE / "manifest.json").read_text())
        self.volumes = {volume["name"]: volume for volume in self.manifest["volumes"]}
        self.passed = self.failed = 0

    def expect(self, name, found, wanted):
        if found == wanted:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {name}: found {found}, wanted {wanted}")

    def opened(self, volume, case):
        path = self.directory / "volume"
        expand((HERE / f"{volume['name']}.slots").read_bytes(), case.get("edits", []), path)
        secret = bytes.fromhex(self.manifest["secrets"][case.get("secret", volume["secret"])])
        return Reader(path.open("rb"), secret, case.get("kmi"), case.get("anchor"))

    def digest(self, reader, view):
        out = self.directory / "out"
        dump(reader, view, out)
        return hashlib.sha256(out.read_bytes()).hexdigest()

    def volume(self, volume):
        reader = self.opened(volume, {})
        name, head = volume["name"], reader.head
        self.expect(name, self.digest(reader, reader.view()), volume["sha256"])
        for field in ("size", "generation", "anchor_count", "epoch"):
            self.expect(f"{name} {field}", getattr(head, field), volume[field])
        for wanted in volume["snapshots"]:
            found = self.digest(reader, reader.view(wanted["name"]))
            self.expect(f"{name} {wanted['name']}", found, wanted["sha256"])

    def case(self, case):
        volume = self.volumes[case["volume"]]
        try:
            reader = self.opened(volume, case)
        except Refused as refused:
            found = refused.name if case["when"] == "open" else f"{refused.name} on opening"
            return self.expect(case["name"], found, case["refusal"])
        if case["refusal"] is None:
            wanted = case.get("sha256", volume["sha256"])
            return self.expect(case["name"], self.digest(reader, reader.view()), wanted)
        reads = [lambda s=s: reader.sector(reader.view(), s) for s in case.get("sectors", [])]
        attempts = {
            "open": [],
            "read": reads,
            "check": reads,
            "snapshots": [reader.snapshots],
        }[case["when"]]
        self.expect(case["name"], [self.refusal(a) for a in attempts] or None,
                    [case["refusal"]] * len(attempts) or case["refusal"])

    @staticmethod
    def refusal(attempt):
        try:
            attempt()
        except Refused as refused:
            return refused.name
        return None

    def ciphers(self):
        key, nonce = bytes(range(32)), bytes(range(16, 48))
        message = bytes([4, 5, 6, 7] * 30)
        sealed, tag = aegis.seal(key, nonce, bytes([1, 2, 3, 4] * 2), message)
        self.expect("AEGIS-256X4, test vector 2 of the draft", tag.hex(), AEGIS_TAG)
        phrase, salt = b"\1" * 32, b"\2" * 16
        self.expect("Argon2id", argon2.argon2id(phrase, salt, 32, 3, 4).hex(), ARGON2_TAG)


AEGIS_TAG = "b63b611b13975e2f3dc3cb6c2397bfcd"
ARGON2_TAG = "03aab965c12001c9d7d0d2de33192c0494b684bb148196d73c1df1acaf6d0c2e"


def main():
    with tempfile.TemporaryDirectory() as directory:
        run = Run(directory)
        run.ciphers()
        for volume in run.manifest["volumes"]:
            run.volume(volume)
        for case in run.manifest["cases"]:
            run.case(case)
    print(f"selftest: {run.passed} passed, {run.failed} failed")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
