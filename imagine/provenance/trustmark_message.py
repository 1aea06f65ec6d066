"""A record number as the hundred bits of TrustMark's own schema 1, proven by our key.

Sixty-one bits of data, thirty-five that mend up to five wrong ones, four that name the schema:
any reader of TrustMark sees a sound mark. What the data says takes the key.
"""

from __future__ import annotations

import hmac
from functools import cache

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]

# BCH over GF(2^7) with x^7 + x^3 + 1, mending five errors. The data counts as the first 61 of eight
# bytes' 64 bits. Source: any book on codes; the layout is that of the package trustmark 0.9.2.
_FIELD, _ORDER, _ERRORS = 0b10001001, 127, 5
_DATA_BITS, _PROOF_BITS, _CHECK_BITS, _SCHEMA, _FILL = 61, 29, 35, 1, 3


class TrustMarkMessage:
    """Our record number as the hundred bits of TrustMark's schema 1, and back.

    Args:
        key: the installation's.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"imagine trustmark 1", "sha256")
        pad = hmac.digest(self._key, b"pad", "sha256")
        self._pad = int.from_bytes(pad[:8], "big") >> (64 - _DATA_BITS)

    def bits(self, record: int) -> Bits:
        """(100,) of 0 and 1."""
        data = (record << _PROOF_BITS | self._proof(record)) ^ self._pad
        word = data << _CHECK_BITS | _check_bits(data)
        text = f"{word:0{_DATA_BITS + _CHECK_BITS}b}{_SCHEMA:04b}"
        return np.array([int(one) for one in text], np.uint8)

    def record(self, bits: Bits) -> int | None:
        """The record number, up to five wrong bits mended; None without the right proof."""
        data = _corrected(int("".join(map(str, bits[:-4].tolist())), 2))
        if data is None:
            return None
        data ^= self._pad
        record, proof = data >> _PROOF_BITS, data & ((1 << _PROOF_BITS) - 1)
        return record if proof == self._proof(record) else None

    def _proof(self, record: int) -> int:
        digest = hmac.digest(self._key, b"record" + record.to_bytes(4, "big"), "sha256")
        return int.from_bytes(digest[:4], "big") >> (32 - _PROOF_BITS)


@cache
def _powers() -> tuple[list[int], list[int]]:
    """Powers of the field's generator, twice around, and logarithms."""
    powers, logs, value = [0] * (2 * _ORDER), [0] * (_ORDER + 1), 1
    for place in range(_ORDER):
        powers[place] = powers[place + _ORDER] = value
        logs[value] = place
        value <<= 1
        if value > _ORDER:
            value ^= _FIELD
    return powers, logs


def _times(first: int, second: int) -> int:
    powers, logs = _powers()
    return powers[logs[first] + logs[second]] if first and second else 0


@cache
def _generator() -> int:
    """Product of the smallest polynomials of the odd powers up to 2 t - 1, bits as terms."""
    powers, _ = _powers()
    roots = {(odd << turn) % _ORDER for odd in range(1, 2 * _ERRORS, 2) for turn in range(7)}
    terms = [1]  # coefficients, lowest first
    for root in sorted(roots):
        shifted, scaled = [0, *terms], [_times(one, powers[root]) for one in terms] + [0]
        terms = [a ^ b for a, b in zip(shifted, scaled, strict=True)]
    return sum(one << place for place, one in enumerate(terms))


def _check_bits(data: int) -> int:
    rest = data << _FILL + _CHECK_BITS
    generator = _generator()
    while rest.bit_length() > _CHECK_BITS:
        rest ^= generator << rest.bit_length() - generator.bit_length()
    return rest


def _corrected(word: int) -> int | None:
    """The data of 96 received bits; None with more errors than can be mended."""
    powers, _ = _powers()
    low = (1 << _CHECK_BITS) - 1
    whole = (word >> _CHECK_BITS) << _FILL + _CHECK_BITS | word & low
    places = [place for place in range(whole.bit_length()) if whole >> place & 1]
    syndromes = [0] * (2 * _ERRORS)
    for number in range(2 * _ERRORS):
        for place in places:
            syndromes[number] ^= powers[(number + 1) * place % _ORDER]
    locator = _locator(syndromes)
    wrong = [p for p in range(_ORDER) if not _value(locator, powers[(_ORDER - p) % _ORDER])]
    if len(wrong) != len(locator) - 1 or len(wrong) > _ERRORS:
        return None
    length = _DATA_BITS + _FILL + _CHECK_BITS
    filled = range(_CHECK_BITS, _CHECK_BITS + _FILL)
    if any(place >= length or place in filled for place in wrong):
        return None  # these bits are known to be zero
    for place in wrong:
        whole ^= 1 << place
    return whole >> _FILL + _CHECK_BITS


def _locator(syndromes: list[int]) -> list[int]:
    """Error locator, lowest coefficient first. Source: Berlekamp 1968, Massey 1969."""
    powers, logs = _powers()
    current, former = [1], [1]
    length, gap, last = 0, 1, 1
    for step in range(len(syndromes)):
        apart = syndromes[step]
        for place in range(1, length + 1):
            if place < len(current):
                apart ^= _times(current[place], syndromes[step - place])
        if not apart:
            gap += 1
            continue
        scale = powers[(logs[apart] - logs[last]) % _ORDER]
        moved = [0] * gap + [_times(scale, one) for one in former]
        size = max(len(current), len(moved))
        new = [
            (current[i] if i < len(current) else 0) ^ (moved[i] if i < len(moved) else 0)
            for i in range(size)
        ]
        if 2 * length <= step:
            former, last, gap, length = current, apart, 1, step + 1 - length
        else:
            gap += 1
        current = new
    while len(current) > 1 and not current[-1]:
        current.pop()
    return current


def _value(terms: list[int], at: int) -> int:
    total = 0
    for one in reversed(terms):
        total = _times(total, at) ^ one
    return total
