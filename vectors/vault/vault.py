"""The pieces of docs/formats/vault.md that a reader and a writer share: numbers, keys, sealing.

Written from that page alone; nothing here was taken from the product's own code.
"""

import hashlib
import hmac
import struct
from collections import namedtuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import aegis

SLOT = 4096
LOG_SLOT = 256
HEADER_MAGIC = b"VSAFEVLT"
LOG_MAGIC = b"VSAFELOG"
FAN_OUT = 128
DEPTH_MAX = 6
SIZE_MAX = 8 << 40

GCM, AEGIS = 1, 2
SUITES = {GCM: "aes-256-gcm", AEGIS: "aegis-256x4"}
DETACHED, REKEYING = 1, 2

SECTOR, SESSION_PAGE, SNAPSHOT_PAGE, LOG_RECORD = 0, 16, 17, 18

EMPTY, RANDOM_KEY, PASS_PHRASE, SEALED, PEER = range(5)
KEY_KINDS = {RANDOM_KEY: "random-key", PASS_PHRASE: "pass-phrase", SEALED: "sealed", PEER: "peer"}
KEY_SLOTS, KEY_SLOT = 16, 2048
KEY_AREA = KEY_SLOTS * KEY_SLOT
KEY_AREA_SLOTS = (2, 10)
MEMORY_MAX, PASSES_MAX, LANES_MAX = 1 << 20, 32, 8


class Refused(Exception):
    """A rule said no; `name` is the one in the page's table."""

    def __init__(self, name, detail):
        super().__init__(detail)
        self.name = name


Ref = namedtuple("Ref", "tag slot sequence session")
NULL = bytes(32)


def u48(value):
    return value.to_bytes(6, "little")


def decode_ref(data, first_slot):
    """A reference, or None for the null one."""
    if data == NULL:
        return None
    ref = Ref(
        data[:16],
        int.from_bytes(data[16:22], "little"),
        int.from_bytes(data[22:28], "little"),
        int.from_bytes(data[28:32], "little"),
    )
    if ref.session == 0 or not first_slot <= ref.slot < 1 << 32:
        raise Refused("metadata-malformed", f"reference {data.hex()}")
    return ref


def encode_ref(ref):
    if ref is None:
        return NULL
    return ref.tag + u48(ref.slot) + u48(ref.sequence) + struct.pack("<I", ref.session)


def sectors_of(size):
    return -(-size // SLOT)


def depth_of(size):
    depth = 1
    while FAN_OUT**depth < sectors_of(size):
        depth += 1
    return depth


def hkdf(salt, key, info):
    """RFC 5869 with SHA-256, one block of output."""
    fixed = hmac.digest(salt, key, hashlib.sha256)
    return hmac.digest(fixed, info + b"\x01", hashlib.sha256)


def header_key(volume_key, uuid):
    return hkdf(uuid, volume_key, b"vouchsafe vault 1 header")


def old_key_key(volume_key, uuid):
    return hkdf(uuid, volume_key, b"vouchsafe vault 1 old key")


def session_key(volume_key, uuid, salt, session, suite):
    info = b"vouchsafe vault 1 session" + uuid + struct.pack("<IB", session, suite)
    return hkdf(salt, volume_key, info)


def slot_key(secret, uuid, salt):
    return hkdf(salt, secret, b"vouchsafe vault 1 slot" + uuid)


def associated(uuid, index, kind):
    return uuid + struct.pack("<QB7x", index, kind)


def gcm_seal(key, nonce, data, message):
    sealed = AESGCM(key).encrypt(nonce, message, data)
    return sealed[:-16], sealed[-16:]


def gcm_open(key, nonce, data, sealed, tag):
    try:
        return AESGCM(key).decrypt(nonce, sealed + tag, data)
    except InvalidTag:
        return None


def seal(suite, key, sequence, data, message):
    """Gives (ciphertext, tag)."""
    if suite == GCM:
        return gcm_seal(key, sequence.to_bytes(12, "little"), data, message)
    return aegis.seal(key, sequence.to_bytes(32, "little"), data, message)


def open_sealed(suite, key, sequence, data, sealed, tag):
    """Gives the message, or None if it is not authentic."""
    if suite == GCM:
        return gcm_open(key, sequence.to_bytes(12, "little"), data, sealed, tag)
    return aegis.open_sealed(key, sequence.to_bytes(32, "little"), data, sealed, tag)


def stretch(phrase, salt, memory, passes, lanes):
    """Argon2id of a pass phrase, by the library if it has it."""
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        from argon2 import argon2id

        return argon2id(phrase, salt, memory, passes, lanes)
    return Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory
    ).derive(phrase)


def padded_text(data):
    """UTF-8 with zeros behind it."""
    text = data.rstrip(b"\0")
    if b"\0" in text:
        raise ValueError("zeros within a text")
    return text.decode("utf-8")
