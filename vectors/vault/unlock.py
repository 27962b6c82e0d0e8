"""From a file's first slots and a secret to an authentic header and the volume's keys."""

import hashlib
import hmac
import struct
from types import SimpleNamespace

from vault import (
    DETACHED,
    EMPTY,
    HEADER_MAGIC,
    KEY_AREA,
    KEY_AREA_SLOTS,
    KEY_KINDS,
    KEY_SLOT,
    KEY_SLOTS,
    LANES_MAX,
    MEMORY_MAX,
    PASSES_MAX,
    PASS_PHRASE,
    RANDOM_KEY,
    REKEYING,
    SIZE_MAX,
    SLOT,
    SUITES,
    Refused,
    depth_of,
    gcm_open,
    header_key,
    old_key_key,
    padded_text,
    slot_key,
    stretch,
)

# How far a copy of the header came before it was of no use; the furthest reason is given.
PROGRESS = (
    "not-vault",
    "unsupported",
    "unparsable",
    "key-area-altered",
    "metadata-malformed",
    "kmi-not-found",
    "wrong-key",
    "kdf-too-costly",
    "header-damaged",
)

HEADER_FIELDS = (
    ("version", "H"), ("suite", "B"), ("depth", "B"), ("area", "B"), ("flags", "B"),
    ("zero_14", "2s"), ("uuid", "16s"), ("size", "Q"), ("generation", "Q"),
    ("anchor_count", "Q"), ("log_slots", "I"), ("epoch", "I"), ("session", "I"),
    ("session_epoch", "I"), ("session_salt", "32s"), ("next_sequence", "Q"),
    ("log_number", "Q"), ("end", "Q"), ("root", "32s"), ("sessions", "32s"),
    ("snapshots", "32s"), ("key_area_digest", "32s"), ("chain_salt", "16s"),
    ("rekeyed_pages", "I"), ("zero_276", "12s"), ("old_key", "32s"), ("old_key_tag", "16s"),
    ("label", "64s"), ("zero_400", "3664s"),
)
HEADER_LAYOUT = struct.Struct("<8x" + "".join(code for _, code in HEADER_FIELDS))
MAC_AT = 4064
assert HEADER_LAYOUT.size == MAC_AT


class Copy(Exception):
    """This copy of the header is of no use, for this reason."""

    def __init__(self, reason, detail=""):
        super().__init__(detail or reason)
        self.reason = reason


def parse_header(data):
    """The fields of one copy, none of them verified yet."""
    if data[:8] != HEADER_MAGIC:
        raise Copy("not-vault")
    values = HEADER_LAYOUT.unpack(data[:MAC_AT])
    head = SimpleNamespace(**dict(zip((name for name, _ in HEADER_FIELDS), values)))
    if head.version != 1 or head.suite not in SUITES:
        raise Copy("unsupported", f"version {head.version}, suite {head.suite}")
    rekeying = bool(head.flags & REKEYING)
    sound = (
        1 <= head.size <= SIZE_MAX
        and head.depth == depth_of(head.size)
        and head.area <= 1
        and not head.flags & ~(DETACHED | REKEYING)
        and not any(head.zero_14 + head.zero_276 + head.zero_400)
        and 64 <= head.log_slots <= 16384
        and head.generation >= 1
        and head.epoch >= 1
        and (head.session or not (head.session_epoch or any(head.session_salt)))
        and (rekeying or not any(head.old_key + head.old_key_tag))
    )
    if not sound:
        raise Copy("unparsable")
    try:
        head.label = padded_text(head.label)
    except ValueError:
        raise Copy("unparsable") from None
    head.first_slot = 256 + head.log_slots
    return head


def parse_key_slot(data):
    """One key slot, or None if it is empty."""
    kind, zeros, memory, passes, lanes = struct.unpack("<B3sIII", data[:16])
    if kind == EMPTY:
        if any(data):
            raise Copy("metadata-malformed", "an empty key slot is not zeros")
        return None
    kmi_length, token_length = struct.unpack("<HH", data[108:112])
    kmi, token = data[112:752], data[752:1776]
    sound = (
        kind in KEY_KINDS
        and not any(zeros + data[48:60] + data[1824:])
        and kmi_length <= len(kmi)
        and token_length <= len(token)
        and not any(kmi[kmi_length:] + token[token_length:])
        and (kind == PASS_PHRASE or not memory | passes | lanes)
    )
    if not sound:
        raise Copy("metadata-malformed", "a key slot")
    return SimpleNamespace(
        kind=kind, memory=memory, passes=passes, lanes=lanes, salt=data[16:48],
        sealed=data[60:92], tag=data[92:108], kmi=kmi[:kmi_length].decode("utf-8", "replace"),
        token=token[:token_length], label=padded_text(data[1776:1824]),
        bound=data[:48] + data[108:1824],
    )


def try_slot(slot, head, secret):
    """The volume key out of one key slot, or None."""
    if slot.kind == PASS_PHRASE:
        if slot.memory > MEMORY_MAX or slot.passes > PASSES_MAX or slot.lanes > LANES_MAX:
            raise Copy("kdf-too-costly")
        if not slot.passes or not slot.lanes or slot.memory < 8 * slot.lanes:
            raise Copy("metadata-malformed", "an impossible derivation")
        secret = stretch(secret, slot.salt, slot.memory, slot.passes, slot.lanes)
    elif not (1 if slot.kind == RANDOM_KEY else 16) <= len(secret) <= 512:
        return None
    key = slot_key(secret, head.uuid, slot.salt)
    data = head.uuid + struct.pack("<I", head.epoch) + slot.bound
    return gcm_open(key, bytes(12), data, slot.sealed, slot.tag)


def key_slots(head, read_slots):
    """The parsed key slots of the area that this copy of the header names."""
    area = read_slots(KEY_AREA_SLOTS[head.area], KEY_AREA // SLOT)
    if hashlib.sha256(area).digest() != head.key_area_digest:
        raise Copy("key-area-altered")
    slots = [parse_key_slot(area[i * KEY_SLOT : (i + 1) * KEY_SLOT]) for i in range(KEY_SLOTS)]
    return [slot for slot in slots if slot]


def unlock_copy(data, read_slots, secret, kmi):
    """One copy of the header by itself: parsed, its key found, authenticated."""
    head = parse_header(data)
    slots = key_slots(head, read_slots)
    if kmi is not None:
        slots = [slot for slot in slots if slot.kmi == kmi]
        if not slots:
            raise Copy("kmi-not-found")
    failed = Copy("wrong-key")
    for slot in slots:
        try:
            head.volume_key = try_slot(slot, head, secret)
        except Copy as reason:
            failed = reason
            continue
        if head.volume_key is not None:
            break
    else:
        raise failed
    key = header_key(head.volume_key, head.uuid)
    if not hmac.compare_digest(hmac.digest(key, data[:MAC_AT], "sha256"), data[MAC_AT:]):
        raise Copy("header-damaged")
    head.volume_keys = {head.epoch: head.volume_key}
    if head.flags & REKEYING:
        wrapping = old_key_key(head.volume_key, head.uuid)
        bound = head.uuid + struct.pack("<I", head.epoch)
        old = gcm_open(wrapping, bytes(12), bound, head.old_key, head.old_key_tag)
        if old is None:
            raise Copy("metadata-malformed", "the old key")
        head.volume_keys[head.epoch - 1] = old
    return head


def unlock(read_slots, secret, kmi=None):
    """The header in force, with the volume's keys."""
    good, reasons = [], []
    for copy in (0, 1):
        data = read_slots(copy, 1)
        try:
            good.append((unlock_copy(data, read_slots, secret, kmi), data))
        except Copy as reason:
            reasons.append(reason)
    if not good:
        reason = max(reasons, key=lambda reason: PROGRESS.index(reason.reason))
        name = "header-damaged" if reason.reason == "unparsable" else reason.reason
        raise Refused(name, f"no copy of the header is of use: {reason}")
    if len(good) == 2:
        (a, a_data), (b, b_data) = good
        if a.generation == b.generation and a_data != b_data:
            raise Refused("header-forked", f"two headers of generation {a.generation}")
    return max((head for head, _ in good), key=lambda head: head.generation)
