"""A small writer of vault volumes: not a disk, only enough of one to make test vectors.

It keeps the whole volume in memory, draws its randomness from a seed, so that the same program gives
the same bytes, and never reuses a slot.
"""

import hashlib
import hmac
import json
import struct

import vault
from vault import (
    FAN_OUT,
    LOG_MAGIC,
    LOG_RECORD,
    LOG_SLOT,
    NULL,
    SECTOR,
    SESSION_PAGE,
    SLOT,
    SNAPSHOT_PAGE,
    Ref,
    depth_of,
    encode_ref,
    sectors_of,
)

LOG_SLOTS = 64


class Writer:
    def __init__(self, seed, suite, size, label):
        self.seed, self.drawn = seed, 0
        self.slots = {}
        self.suite, self.size, self.label = suite, size, label
        self.uuid, self.volume_key = self.random(16), self.random(32)
        self.epoch, self.old_key, self.key_area, self.area = 1, None, b"", 0
        self.generation, self.anchor_count, self.sequence = 0, 0, 1
        self.session, self.session_epoch, self.session_salt = 0, 0, bytes(32)
        self.chain_salt = bytes(16)
        self.sessions = []
        self.first_slot = 256 + LOG_SLOTS
        self.next_slot = self.first_slot + sectors_of(size)
        self.tree, self.root = {}, None
        self.pending, self.snapshot_entries = {}, []
        self.session_ref, self.snapshot_ref = None, None
        self.log_number, self.log_position, self.chain = 1, 0, b""

    def random(self, length):
        self.drawn += 1
        return hashlib.shake_256(f"{self.seed} {self.drawn}".encode()).digest(length)

    # Sealing.

    def key_of(self, session):
        entry = next(entry for entry in self.sessions if entry[0] == session)
        volume_key = self.volume_key if entry[1] == self.epoch else self.old_key
        return vault.session_key(volume_key, self.uuid, entry[2], session, self.suite)

    def next_sequence(self):
        self.sequence += 1
        return self.sequence - 1

    def put(self, kind, index, message, slot=None):
        """Seals one unit into a fresh slot."""
        if slot is None:
            slot, self.next_slot = self.next_slot, self.next_slot + 1
        sequence = self.next_sequence()
        data = vault.associated(self.uuid, index, kind)
        key = self.key_of(self.session)
        self.slots[slot], tag = vault.seal(self.suite, key, sequence, data, message)
        return Ref(tag, slot, sequence, self.session)

    # Key slots.

    def key_slot(self, kind, secret, kmi="", token=b"", label="", cost=(0, 0, 0)):
        salt = self.random(32)
        head = struct.pack("<B3xIII", kind, *cost) + salt
        rest = struct.pack("<HH", len(kmi), len(token))
        rest += kmi.encode().ljust(640, b"\0") + token.ljust(1024, b"\0")
        rest += label.encode().ljust(48, b"\0")
        if kind == vault.PASS_PHRASE:
            secret = vault.stretch(secret, salt, *cost)
        key = vault.slot_key(secret, self.uuid, salt)
        data = self.uuid + struct.pack("<I", self.epoch) + head + rest
        sealed, tag = vault.gcm_seal(key, bytes(12), data, self.volume_key)
        return head + bytes(12) + sealed + tag + rest + bytes(224)

    def write_keys(self, slots):
        """Into the area that is not in force; the next header names it."""
        self.area = 1 - self.area
        self.key_area = b"".join(slots).ljust(vault.KEY_AREA, b"\0")
        first = vault.KEY_AREA_SLOTS[self.area]
        for i in range(vault.KEY_AREA // SLOT):
            self.slots[first + i] = self.key_area[i * SLOT : (i + 1) * SLOT]

    def new_epoch(self):
        self.old_key, self.volume_key = self.volume_key, self.random(32)
        self.epoch += 1

    # Sessions.

    def attach(self):
        """Begins a session."""
        self.session, self.session_epoch = self.session + 1, self.epoch
        self.session_salt, self.chain_salt = self.random(32), self.random(16)
        self.sessions.append((self.session, self.session_epoch, self.session_salt))
        older = self.sessions[:-1]
        self.session_ref = None
        if older:
            page = bytearray(SLOT)
            struct.pack_into("<32sI", page, 0, NULL, len(older))
            for i, entry in enumerate(older):
                struct.pack_into("<II32s", page, 48 + 40 * i, *entry)
            self.session_ref = self.put(SESSION_PAGE, 0, bytes(page))
        self.commit_header()

    # Sectors and the log.

    def write(self, sector, content):
        home = self.first_slot + sector
        slot = home if home not in self.slots else None
        self.pending[sector] = self.put(SECTOR, sector, content.ljust(SLOT, b"\0"), slot)

    def trim(self, sector):
        self.pending[sector] = None

    def flush(self):
        """One log record with what changed since the last."""
        items = b""
        for sector, ref in sorted(self.pending.items()):
            items += struct.pack("<QII", sector, 1, 1 if ref else 2)
            items += encode_ref(ref) if ref else b""
        self.record(items or bytes(16))
        for sector, ref in self.pending.items():
            self.tree[sector] = ref
        self.pending = {}

    def record(self, body):
        head = LOG_MAGIC + struct.pack(
            "<QQII6s10x", self.log_number, self.generation, len(body), self.session,
            vault.u48(self.sequence),
        )
        data = vault.associated(self.uuid, self.log_number, LOG_RECORD) + head + self.chain
        key = self.key_of(self.session)
        sealed, tag = vault.seal(self.suite, key, self.next_sequence(), data, body)
        raw = head + tag + sealed
        for at in range(0, len(raw), SLOT):
            slot = LOG_SLOT + self.log_position
            self.slots[slot] = raw[at : at + SLOT].ljust(SLOT, b"\0")
            self.log_position += 1
        self.log_number, self.chain = self.log_number + 1, tag

    # The tree.

    def checkpoint(self, flags=0):
        self.tree.update(self.pending)
        self.pending = {}
        self.root = self.seal_tree()
        self.commit_header(flags)

    def seal_tree(self):
        level = {sector: ref for sector, ref in self.tree.items() if ref}
        for height in range(1, depth_of(self.size) + 1):
            pages = {}
            for index, ref in sorted(level.items()):
                page = pages.setdefault(index // FAN_OUT, bytearray(SLOT))
                at = 32 * (index % FAN_OUT)
                page[at : at + 32] = encode_ref(ref)
            level = {p: self.put(height, p, bytes(page)) for p, page in pages.items()}
        return level.get(0)

    def snapshot(self, name, time):
        """Pins the tree as the last checkpoint left it."""
        self.snapshot_entries.append(
            struct.pack(
                "<64s32sQQQB23x", name.encode(), encode_ref(self.root), self.size,
                self.sequence, time, depth_of(self.size),
            )
        )
        page = struct.pack("<I12x", len(self.snapshot_entries)) + b"".join(self.snapshot_entries)
        self.snapshot_ref = self.put(SNAPSHOT_PAGE, 0, page.ljust(SLOT, b"\0"))
        self.commit_header()

    # The header.

    def commit_header(self, flags=0):
        self.generation += 1
        self.log_position, self.chain = 0, self.chain_salt
        self.first_record = self.log_number
        header = self.header(flags)
        self.slots[0] = self.slots[1] = header

    def header(self, flags=0, **changes):
        old_key, old_tag = bytes(32), bytes(16)
        if self.old_key is not None:
            flags |= vault.REKEYING
            key = vault.old_key_key(self.volume_key, self.uuid)
            data = self.uuid + struct.pack("<I", self.epoch)
            old_key, old_tag = vault.gcm_seal(key, bytes(12), data, self.old_key)
        say = {
            "version": 1, "suite": self.suite, "depth": depth_of(self.size), "area": self.area,
            "flags": flags, "size": self.size, "generation": self.generation,
            "root": encode_ref(self.root), "label": self.label.encode(),
        } | changes
        data = vault.HEADER_MAGIC + struct.pack(
            "<HBBBB2x16sQQQIIII32sQQQ32s32s32s32s16sI12x32s16s64s3664x",
            say["version"], say["suite"], say["depth"], say["area"], say["flags"], self.uuid,
            say["size"], say["generation"], self.anchor_count, LOG_SLOTS, self.epoch,
            self.session, self.session_epoch, self.session_salt, self.sequence,
            self.first_record, self.next_slot, say["root"], encode_ref(self.session_ref),
            encode_ref(self.snapshot_ref), hashlib.sha256(self.key_area).digest(),
            self.chain_salt, 0, old_key, old_tag, say["label"],
        )
        return data + hmac.digest(vault.header_key(self.volume_key, self.uuid), data, "sha256")

    def file(self):
        """Its slots that are not zeros, and its length in slots."""
        slots = {n: data for n, data in sorted(self.slots.items()) if any(data)}
        return slots, max(self.next_slot, self.first_slot)


def kmi(vm, version):
    """Key-management information as canonical JSON."""
    said = {"vm": vm, "key_id": "sha256:" + "ab" * 32, "version": version, "epoch": 1}
    return json.dumps(said, sort_keys=True, separators=(",", ":"))
