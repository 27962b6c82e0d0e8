#!/usr/bin/env python3
"""An independent reader of vault volumes, written from docs/formats/vault.md alone.

    reader.py inspect FILE --key-file K [--anchor T] [--kmi JSON]
    reader.py check   FILE --key-file K      every sector and page; exit 3 and what is bad
    reader.py dump    FILE OUT --key-file K [--snapshot NAME]

Gives nothing out that is not verified. A refusal is one JSON object on stdout and exit status 3.
Needs Python 3.11 and the `cryptography` package (Debian: python3-cryptography).
"""

import argparse
import json
import os
import struct
import sys
from types import SimpleNamespace

from unlock import unlock
from vault import (
    DETACHED,
    FAN_OUT,
    LOG_MAGIC,
    LOG_RECORD,
    LOG_SLOT,
    SECTOR,
    SESSION_PAGE,
    SLOT,
    SNAPSHOT_PAGE,
    SUITES,
    Refused,
    associated,
    decode_ref,
    depth_of,
    open_sealed,
    padded_text,
    sectors_of,
    session_key,
)

SESSIONS_MAX = 1 << 20


def malformed(detail):
    return Refused("metadata-malformed", detail)


class Reader:
    """An opened volume; everything it returns is verified."""

    def __init__(self, file, secret, kmi=None, anchor=None):
        self.file = file
        self.slots = os.fstat(file.fileno()).st_size // SLOT
        self.pages = {}
        head = self.head = unlock(self.read_slots, secret, kmi)
        if anchor is not None and head.anchor_count < anchor:
            raise Refused("rolled-back", f"header {head.anchor_count}, counter {anchor}")
        if anchor is not None and head.anchor_count > anchor + 1:
            raise Refused("anchor-mismatch", f"header {head.anchor_count}, counter {anchor}")
        if self.slots < max(head.first_slot, head.end):
            raise Refused("volume-truncated", f"{self.slots} slots")
        self.keys = {}
        if head.session:
            self.add_session(head.session, head.session_epoch, head.session_salt)
        self.root = self.ref(head.root)
        self.read_sessions()
        self.overlay = {}
        self.read_log()

    # The file.

    def read_slots(self, first, count):
        self.file.seek(first * SLOT)
        return self.file.read(count * SLOT).ljust(count * SLOT, b"\0")

    def ref(self, data):
        return decode_ref(data, self.head.first_slot)

    def open_unit(self, ref, kind, index):
        """A slot's plaintext, or None if it is not authentic."""
        key = self.keys.get(ref.session)
        if key is None or ref.slot >= self.slots:
            return None
        data = associated(self.head.uuid, index, kind)
        sealed = self.read_slots(ref.slot, 1)
        return open_sealed(self.head.suite, key, ref.sequence, data, sealed, ref.tag)

    # Sessions.

    def add_session(self, session, epoch, salt):
        volume_key = self.head.volume_keys.get(epoch)
        if volume_key is None or session == 0:
            raise malformed(f"session {session} of epoch {epoch}")
        key = session_key(volume_key, self.head.uuid, salt, session, self.head.suite)
        if self.keys.setdefault(session, key) != key:
            raise malformed(f"session {session} is not the header's")

    def read_sessions(self):
        ref, index, last = self.ref(self.head.sessions), 0, 0
        while ref:
            if ref.session != self.head.session or index * 101 > SESSIONS_MAX:
                raise malformed(f"session page {index}")
            page = self.open_unit(ref, SESSION_PAGE, index)
            if page is None:
                raise Refused("page-damaged", f"session page {index}, slot {ref.slot}")
            (count,) = struct.unpack("<I", page[32:36])
            if count > 101 or any(page[36:48] + page[48 + 40 * count :]):
                raise malformed(f"session page {index}")
            for at in range(48, 48 + 40 * count, 40):
                session, epoch = struct.unpack("<II", page[at : at + 8])
                if session <= last:
                    raise malformed(f"session {session} after {last}")
                self.add_session(session, epoch, page[at + 8 : at + 40])
                last = session
            ref, index = self.ref(page[:32]), index + 1

    # The log.

    def log_head(self, position):
        data = self.read_slots(LOG_SLOT + position, 1)[:64]
        values = struct.unpack("<8sQQII6s10s16s", data)
        names = ("magic", "number", "generation", "length", "session", "sequence", "zeros", "tag")
        head = SimpleNamespace(**dict(zip(names, values)), bytes=data[:48])
        head.slots = -(-(64 + head.length) // SLOT)
        return head

    def open_record(self, head, position, chain):
        """The body of a record, or None if it is not authentic."""
        fits = position + head.slots <= self.head.log_slots
        if head.magic != LOG_MAGIC or any(head.zeros) or head.length % 16 or not fits:
            return None
        if not head.length or head.session != self.head.session:
            return None
        raw = self.read_slots(LOG_SLOT + position, head.slots)
        if any(raw[64 + head.length :]):
            return None
        data = associated(self.head.uuid, head.number, LOG_RECORD) + head.bytes + chain
        sequence = int.from_bytes(head.sequence, "little")
        sealed, key = raw[64 : 64 + head.length], self.keys[head.session]
        return open_sealed(self.head.suite, key, sequence, data, sealed, head.tag)

    def parse_body(self, body):
        """Pairs of sector and reference."""
        at, found = 0, []
        while at < len(body):
            if len(body) - at < 16:
                raise malformed("an item of the log")
            first, count, kind = struct.unpack("<QII", body[at : at + 16])
            at += 16
            if count == 0:
                if first or kind or any(body[at:]):
                    raise malformed("the end of a log record")
                break
            if first + count > sectors_of(self.head.size) or kind not in (1, 2):
                raise malformed("an item of the log")
            if kind == 2:
                found += [(sector, None) for sector in range(first, first + count)]
                continue
            if len(body) - at < 32 * count:
                raise malformed("an item of the log")
            for sector in range(first, first + count):
                found.append((sector, self.ref(body[at : at + 32])))
                at += 32
        return found

    def read_log(self):
        head = self.head
        if not head.session:
            return
        first = self.log_head(0)
        if first.generation > head.generation and first.magic == LOG_MAGIC:
            if self.open_record(first, 0, head.chain_salt) is not None:
                raise Refused("header-stale", f"the log follows header {first.generation}")
        records, position, number, chain = [], 0, head.log_number, head.chain_salt
        while position < head.log_slots:
            record = self.log_head(position)
            if record.number != number or record.generation != head.generation:
                break
            body = self.open_record(record, position, chain)
            if body is None:
                break
            records.append(self.parse_body(body))
            position, number, chain = position + record.slots, number + 1, record.tag
        self.refuse_gap(position, number)
        if records and head.flags & DETACHED:
            raise Refused("log-damaged", "records after a detachment in good order")
        if records and not all(self.opens(*entry) for entry in records[-1]):
            records.pop()
        for record in records:
            self.overlay.update(record)

    def refuse_gap(self, position, number):
        """Nothing of this row may follow behind its end."""
        for behind in range(position + 1, self.head.log_slots):
            head = self.log_head(behind)
            ours = (LOG_MAGIC, self.head.generation, self.head.session)
            if (head.magic, head.generation, head.session) == ours and head.number > number:
                raise Refused("log-damaged", f"record {number} is not there, {head.number} is")

    def opens(self, sector, ref):
        return ref is None or self.open_unit(ref, SECTOR, sector) is not None

    # The tree.

    def page(self, ref, level, number, sectors):
        """The references of one page."""
        if (ref, level, number, sectors) in self.pages:
            return self.pages[ref, level, number, sectors]
        data = self.open_unit(ref, level, number)
        if data is None:
            raise Refused("page-damaged", f"page {number} of level {level}, slot {ref.slot}")
        refs = [self.ref(data[at : at + 32]) for at in range(0, SLOT, 32)]
        span = FAN_OUT ** (level - 1)
        for i, entry in enumerate(refs):
            if entry and (number * FAN_OUT + i) * span >= sectors:
                raise malformed(f"page {number} of level {level} refers beyond the disk")
        self.pages[ref, level, number, sectors] = refs
        return refs

    def live(self):
        head = self.head
        return SimpleNamespace(
            name=None, root=self.root, size=head.size, depth=head.depth, overlay=self.overlay
        )

    def find(self, view, sector):
        """The reference of a sector, or None if it is null."""
        if sector in view.overlay:
            return view.overlay[sector]
        ref = view.root
        for level in range(view.depth, 0, -1):
            if ref is None:
                return None
            number = sector // FAN_OUT**level
            index = sector // FAN_OUT ** (level - 1) % FAN_OUT
            ref = self.page(ref, level, number, sectors_of(view.size))[index]
        return ref

    def sector(self, view, sector):
        ref = self.find(view, sector)
        if ref is None:
            return bytes(SLOT)
        data = self.open_unit(ref, SECTOR, sector)
        if data is None:
            raise Refused("sector-damaged", f"sector {sector}, byte {sector * SLOT} of the disk")
        return data

    # Snapshots.

    def snapshots(self):
        ref = self.ref(self.head.snapshots)
        if ref is None:
            return []
        page = self.open_unit(ref, SNAPSHOT_PAGE, 0)
        if page is None:
            raise Refused("page-damaged", f"the snapshot page, slot {ref.slot}")
        (count,) = struct.unpack("<I", page[:4])
        if count > 28 or any(page[4:16] + page[16 + 144 * count :]):
            raise malformed("the snapshot page")
        found = [self.snapshot(page[at : at + 144]) for at in range(16, 16 + 144 * count, 144)]
        if len({entry.name for entry in found}) != count:
            raise malformed("two snapshots of one name")
        return found

    def snapshot(self, data):
        name, root, size, below, time, depth, zeros = struct.unpack("<64s32sQQQB23s", data)
        try:
            name = padded_text(name)
        except ValueError:
            raise malformed("a snapshot's name") from None
        if not name or any(zeros) or not 1 <= size or depth != depth_of(size):
            raise malformed("a snapshot")
        return SimpleNamespace(
            name=name, root=self.ref(root), size=size, depth=depth, below=below, time=time,
            overlay={},
        )

    def view(self, name=None):
        if name is None:
            return self.live()
        for entry in self.snapshots():
            if entry.name == name:
                return entry
        raise Refused("snapshot-not-found", name)


def check(reader):
    """Every sector and page of the disk and its snapshots: what does not open."""
    bad = []
    for view in [reader.live(), *reader.snapshots()]:
        for sector in range(sectors_of(view.size)):
            try:
                reader.sector(view, sector)
            except Refused as refused:
                bad.append({"snapshot": view.name, "byte": sector * SLOT, "why": refused.name})
    return bad


def dump(reader, view, out):
    with open(out, "wb") as file:
        for sector in range(sectors_of(view.size)):
            data = reader.sector(view, sector)
            if any(data):
                file.seek(sector * SLOT)
                file.write(data[: view.size - sector * SLOT])
        file.truncate(view.size)


def inspect(reader):
    head = reader.head
    return {
        "suite": SUITES[head.suite], "size": head.size, "uuid": head.uuid.hex(),
        "label": head.label, "generation": head.generation, "anchor_count": head.anchor_count,
        "epoch": head.epoch, "session": head.session, "detached": bool(head.flags & DETACHED),
        "rekeying": len(head.volume_keys) > 1, "log_sectors": len(reader.overlay),
        "snapshots": [
            {"name": entry.name, "size": entry.size, "time": entry.time}
            for entry in reader.snapshots()
        ],
    }


def run(args):
    with open(args.key_file, "rb") as key, open(args.file, "rb") as file:
        reader = Reader(file, key.read(), args.kmi, args.anchor)
        if args.verb == "inspect":
            print(json.dumps(inspect(reader)))
        elif args.verb == "dump":
            dump(reader, reader.view(args.snapshot), args.out)
        else:
            bad = check(reader)
            for entry in bad:
                print(json.dumps(entry))
            return 3 if bad else 0
    return 0


def main():
    parser = argparse.ArgumentParser(description="Reads a vault volume.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("inspect", "check", "dump"):
        verb = verbs.add_parser(name)
        verb.add_argument("file")
        if name == "dump":
            verb.add_argument("out")
            verb.add_argument("--snapshot")
        verb.add_argument("--key-file", required=True)
        verb.add_argument("--anchor", type=int)
        verb.add_argument("--kmi")
    try:
        return run(parser.parse_args())
    except Refused as refused:
        print(json.dumps({"refused": refused.name, "detail": str(refused)}))
        return 3


if __name__ == "__main__":
    sys.exit(main())
