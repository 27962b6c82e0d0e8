#!/usr/bin/env python3
"""Makes the vectors: volumes (`*.slots`) and `manifest.json` with what a reader must say.

    make.py DIR        writes them
    make.py --check    compares what it makes with the files beside it; exit 1 if they differ

A `.slots` file is a sparse volume: its length in slots (u32, little-endian), then for each slot that
is not zeros its number (u32) and its 4096 bytes.
"""

import base64
import hashlib
import json
import struct
import sys
from pathlib import Path

import vault
from vault import SLOT, Ref
from writer import Writer, kmi

KEY = b"a random key of the test vectors"
OTHER_KEY = b"the key that seals for a machine"
PHRASE = b"correct horse battery staple"
CHEAP = (64, 1, 1)
LENGTH = 201 * SLOT - 3584


def pattern(name, length=SLOT):
    return hashlib.shake_256(name.encode()).digest(length)


class Disk:
    """A writer together with what its disk should read as."""

    def __init__(self, name, suite, size):
        self.name, self.writer = name, Writer(name, suite, size, f"vector {name}")
        self.content = bytearray(size)
        self.snapshots, self.versions = [], {}

    def write(self, *sectors):
        for sector in sectors:
            version = self.versions[sector] = self.versions.get(sector, 0) + 1
            room = min(SLOT, len(self.content) - sector * SLOT)
            data = pattern(f"{self.name} {sector} {version}", room)
            self.content[sector * SLOT : sector * SLOT + room] = data
            self.writer.write(sector, data)

    def trim(self, sector):
        self.content[sector * SLOT : (sector + 1) * SLOT] = bytes(SLOT)
        self.writer.trim(sector)

    def snapshot(self, name, time):
        self.snapshots.append({"name": name, "size": len(self.content), "sha256": self.digest()})
        self.writer.snapshot(name, time)

    def digest(self):
        return hashlib.sha256(self.content).hexdigest()

    def describe(self, secret):
        writer = self.writer
        return {
            "name": self.name, "secret": secret, "suite": vault.SUITES[writer.suite],
            "size": len(self.content), "generation": writer.generation,
            "anchor_count": writer.anchor_count, "epoch": writer.epoch,
            "sha256": self.digest(), "snapshots": self.snapshots,
        }


def busy(name, suite, keys):
    """Two sessions, a snapshot, a checkpoint and a log with three records."""
    disk = Disk(name, suite, LENGTH)
    writer = disk.writer
    writer.anchor_count = 7
    for slots in keys(writer):
        writer.write_keys(slots)
    writer.commit_header()
    writer.attach()
    disk.write(0, 1, 5, 130)
    writer.checkpoint()
    disk.snapshot("before", 1_700_000_000)
    writer.attach()
    disk.write(1, 200)
    disk.trim(5)
    disk.stale_header = writer.slots[0]
    writer.checkpoint()
    disk.write(0, 7)
    writer.flush()
    disk.trim(130)
    writer.flush()
    writer.flush()
    return disk


def gcm():
    def keys(writer):
        disk_key = lambda: writer.key_slot(vault.RANDOM_KEY, KEY, kmi("web", 1), label="host")
        lost = writer.key_slot(vault.PEER, pattern("revoked", 32), label="revoked")
        sealed = writer.key_slot(vault.SEALED, OTHER_KEY, kmi("web", 2), b"an object of a TPM")
        return [[disk_key(), lost], [disk_key(), sealed]]

    return busy("gcm", vault.GCM, keys)


def aegis():
    def keys(writer):
        phrase = writer.key_slot(vault.PASS_PHRASE, PHRASE, label="recovery", cost=CHEAP)
        return [[phrase, writer.key_slot(vault.RANDOM_KEY, KEY)]]

    return busy("aegis", vault.AEGIS, keys)


def small():
    """One page, one pass phrase, and a last record whose sectors can be taken away."""
    disk = Disk("small", vault.GCM, 3 * SLOT)
    writer = disk.writer
    writer.write_keys([writer.key_slot(vault.PASS_PHRASE, PHRASE, cost=CHEAP)])
    writer.commit_header()
    writer.attach()
    disk.write(0)
    writer.flush()
    disk.before_last = disk.digest()
    disk.write(1, 2)
    writer.flush()
    return disk


def rekeying():
    """Half of it sealed under the epoch before."""
    disk = Disk("rekeying", vault.GCM, 3 * SLOT)
    writer = disk.writer
    writer.write_keys([writer.key_slot(vault.RANDOM_KEY, KEY)])
    writer.commit_header()
    writer.attach()
    disk.write(0, 1)
    writer.checkpoint()
    writer.new_epoch()
    writer.write_keys([writer.key_slot(vault.RANDOM_KEY, KEY)])
    writer.attach()
    disk.write(1, 2)
    writer.checkpoint(vault.DETACHED)
    return disk


def empty():
    disk = Disk("empty", vault.GCM, 5000)
    disk.writer.write_keys([disk.writer.key_slot(vault.RANDOM_KEY, KEY)])
    disk.writer.commit_header(vault.DETACHED)
    return disk


# Edits. Places are bytes of the file; `from` copies out of the volume as it was.


def xor(at, bits=1):
    return {"at": at, "xor": bits}


def put(at, data):
    return {"at": at, "bytes": base64.b64encode(data).decode()}


def zeros(at):
    return {"at": at, "zeros": SLOT}


def copy(slot, source, count=1):
    return {"at": slot * SLOT, "from": source * SLOT, "length": count * SLOT}


def both(edit):
    """In both copies of the header."""
    return [edit, edit | {"at": edit["at"] + SLOT}]


def with_area_digest(disk, edits):
    """Edits in the key area, and a header that names the result, as far as one without keys can."""
    writer = disk.writer
    first = vault.KEY_AREA_SLOTS[writer.area] * SLOT
    area = bytearray(writer.key_area)
    for edit in edits:
        data = base64.b64decode(edit["bytes"])
        area[edit["at"] : edit["at"] + len(data)] = data
    moved = [edit | {"at": edit["at"] + first} for edit in edits]
    return moved + both(put(224, hashlib.sha256(area).digest()))


def case(name, volume, edits, refusal=None, when="open", **more):
    flat = edits if isinstance(edits, list) else [edits]
    return {"name": name, "volume": volume, "edits": flat, "refusal": refusal, "when": when} | more


def header_cases(disk):
    writer, area = disk.writer, vault.KEY_AREA_SLOTS[disk.writer.area] * SLOT
    foreign = writer.key_area[: vault.KEY_SLOT].replace(b'"vm":"web"', b'"vm":"dbs"')[112:752]
    second = writer.key_area[vault.KEY_SLOT + 60 : vault.KEY_SLOT + 108]
    old_area = vault.KEY_AREA_SLOTS[1 - writer.area]
    return [
        case("one-header-flipped", "gcm", xor(336)),
        case("both-headers-flipped", "gcm", both(xor(336)), "header-damaged"),
        case("size-changed", "gcm", both(xor(34)), "header-damaged"),
        case("reserved-byte-set", "gcm", both(xor(14)), "header-damaged"),
        case("magic-changed", "gcm", both(xor(0)), "not-vault"),
        case("version-2", "gcm", both(put(8, b"\2\0")), "unsupported"),
        case("suite-9", "gcm", both(put(10, b"\t")), "unsupported"),
        case("depth-wrong", "gcm", both(put(0, writer.header(depth=3))), "header-damaged"),
        case("headers-forked", "gcm", put(SLOT, writer.header(label=b"fork")), "header-forked"),
        case("headers-of-before", "gcm", both(put(0, disk.stale_header)), "header-stale"),
        case("anchor-same", "gcm", [], anchor=7),
        case("anchor-one-behind", "gcm", [], anchor=6),
        case("anchor-ahead", "gcm", [], "rolled-back", anchor=8),
        case("anchor-far-behind", "gcm", [], "anchor-mismatch", anchor=5),
        case("file-cut-off", "gcm", {"length": 300 * SLOT}, "volume-truncated"),
        case("key-wrong", "gcm", [], "wrong-key", secret="other"),
        case("key-area-flipped", "gcm", xor(area + 1776), "key-area-altered"),
        case("key-area-of-before", "gcm", copy(area // SLOT, old_area, 8), "key-area-altered"),
        case("kmi-unknown", "gcm", [], "kmi-not-found", kmi=kmi("web", 3)),
        case("kmi-known", "gcm", [], kmi=kmi("web", 1)),
        case("kmi-exchanged", "gcm", with_area_digest(disk, [put(112, foreign)]), "wrong-key"),
        case("keys-exchanged", "gcm", with_area_digest(disk, [put(60, second)]), "wrong-key"),
    ]


def unit_cases(disk, name):
    writer = disk.writer
    place = {sector: ref.slot for sector, ref in writer.tree.items() if ref}
    flip = lambda slot: xor(slot * SLOT + 1000, 4)
    read = lambda *sectors: {"when": "read", "sectors": list(sectors)}
    bad = "sector-damaged"
    first_page, root = writer.root.slot - 2, writer.root.slot
    return [
        case("sector-flipped", name, flip(place[1]), bad, **read(1)),
        case(
            "sectors-exchanged", name,
            [copy(place[1], place[200]), copy(place[200], place[1])], bad, **read(1, 200),
        ),
        case("sector-of-before", name, copy(place[1], writer.first_slot + 1), bad, **read(1)),
        case("sector-erased", name, zeros(place[200] * SLOT), bad, **read(200)),
        case("sector-of-log-flipped", name, flip(place[7]), bad, **read(7)),
        case("page-flipped", name, flip(first_page), "page-damaged", **read(1, 5)),
        case(
            "page-erased", name, zeros(first_page * SLOT), "page-damaged", **read(1, 5)
        ),
        case("root-flipped", name, flip(root), "page-damaged", **read(1, 200)),
        case("pages-exchanged", name, copy(first_page, root), "page-damaged", **read(1)),
        case("session-page-flipped", name, flip(writer.session_ref.slot), "page-damaged"),
        case(
            "snapshot-page-flipped", name, flip(writer.snapshot_ref.slot), "page-damaged",
            "snapshots",
        ),
    ]


def log_cases(disk):
    writer, log = disk.writer, vault.LOG_SLOT
    detached = writer.header(vault.DETACHED)
    return [
        case("record-flipped", "gcm", xor(log * SLOT + 70), "log-damaged"),
        case("record-erased", "gcm", zeros(log * SLOT), "log-damaged"),
        case("record-left-out", "gcm", copy(log, log + 1), "log-damaged"),
        case("record-padding-set", "gcm", xor(log * SLOT + 4000), "log-damaged"),
        case("last-record-flipped", "gcm", xor((log + 2) * SLOT + 70)),
        case("detached-with-log", "gcm", both(put(0, detached)), "log-damaged"),
    ]


def small_cases(disk):
    writer = disk.writer
    place = {sector: ref.slot for sector, ref in writer.tree.items()}
    log, gone = vault.LOG_SLOT, {"sha256": disk.before_last}
    costly = with_area_digest(disk, [put(4, struct.pack("<I", 2 << 20))])
    return [
        case("last-sector-missing", "small", zeros(place[2] * SLOT), **gone),
        case("last-record-torn", "small", xor((log + 1) * SLOT + 90), **gone),
        case(
            "earlier-sector-missing", "small", zeros(place[0] * SLOT),
            "sector-damaged", "read", sectors=[0],
        ),
        case("derivation-too-costly", "small", costly, "kdf-too-costly"),
        case(
            "reference-beyond-the-end", "small", beyond(disk), "metadata-malformed", "check",
            sectors=[0],
        ),
    ]


def beyond(disk):
    """An authentic page that refers to a sector behind the disk's end."""
    writer = disk.writer
    page = bytearray(SLOT)
    page[32 * 5 : 32 * 6] = vault.encode_ref(Ref(bytes(16), writer.first_slot, 1, 1))
    root = writer.put(1, 0, bytes(page))
    slot = writer.slots.pop(root.slot)
    writer.generation += 1
    header = writer.header(root=vault.encode_ref(root))
    writer.generation -= 1
    return [put(root.slot * SLOT, slot), *both(put(0, header))]


def pack(writer):
    slots, length = writer.file()
    parts = [struct.pack("<I", length)]
    parts += [struct.pack("<I", n) + data for n, data in slots.items()]
    return b"".join(parts)


def make():
    """Names and contents of all files."""
    disks = [(gcm(), "key"), (aegis(), "phrase"), (small(), "phrase"), (rekeying(), "key")]
    disks.append((empty(), "key"))
    files = {f"{disk.name}.slots": pack(disk.writer) for disk, _ in disks}
    main, fast, little = disks[0][0], disks[1][0], disks[2][0]
    described = [disk.describe(secret) for disk, secret in disks]
    secrets = {"key": KEY, "sealed": OTHER_KEY, "phrase": PHRASE, "other": pattern("other", 32)}
    cases = header_cases(main) + unit_cases(main, "gcm") + log_cases(main)
    cases += [c | {"name": f"aegis-{c['name']}"} for c in unit_cases(fast, "aegis")]
    cases += small_cases(little)
    manifest = {
        "secrets": {name: secret.hex() for name, secret in secrets.items()},
        "volumes": described,
        "cases": cases,
    }
    files["manifest.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
    return files


def main():
    here = Path(__file__).parent
    if sys.argv[1:] == ["--check"]:
        differ = [n for n, data in make().items() if (here / n).read_bytes() != data]
        print("\n".join(f"differs: {name}" for name in differ) or "the same")
        return 1 if differ else 0
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    for name, data in make().items():
        (Path(sys.argv[1]) / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
