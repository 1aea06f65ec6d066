"""What the invisible watermark says: a record number nobody can make up without the key.

Seventy-two bits: a nonce, then version, record number and a message authentication code, the
latter three scrambled by the nonce. A tail-biting convolutional code doubles them. The nonce lets
the embedder choose, among 256 equivalent messages, the one the picture already half contains.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imagine.core import FloatArray

Bits = NDArray[np.uint8]

VERSION = 1
MAX_RECORD = 2**32 - 1
NONCE_BITS, VERSION_BITS, RECORD_BITS, MAC_BITS = 8, 4, 32, 28
PAYLOAD_BITS = NONCE_BITS + VERSION_BITS + RECORD_BITS + MAC_BITS
CODED_BITS = 2 * PAYLOAD_BITS
NONCES = 2**NONCE_BITS

# Rate 1/2, constraint length 9, free distance 12: the pair every table of good codes lists.
_MEMORY = 8
_GENERATORS = (0o561, 0o753)
_STATES = 1 << _MEMORY
_OVERLAP = 40  # turns of the circle before and after, so that the open ends do not matter


class PayloadCode:
    """Turns record numbers into coded bits and soft coded bits into record numbers."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        body_bits = PAYLOAD_BITS - NONCE_BITS
        stream = hashlib.shake_256(b"imagine watermark scramble 1" + key)
        raw = np.frombuffer(stream.digest(NONCES * body_bits // 8), np.uint8)
        self._scramble: Bits = np.unpackbits(raw).reshape(NONCES, body_bits)

    def messages(self, record: int) -> Bits:
        """Every coded message that says `record`: (NONCES, CODED_BITS), 0 or 1."""
        body = np.concatenate(
            [
                _to_bits(VERSION, VERSION_BITS),
                _to_bits(record, RECORD_BITS),
                _to_bits(self._mac(VERSION, record), MAC_BITS),
            ]
        )
        nonces = np.unpackbits(np.arange(NONCES, dtype=np.uint8)[:, None], axis=1)
        return _encode(np.concatenate([nonces, body ^ self._scramble], axis=1))

    def read(self, soft: FloatArray) -> list[int | None]:
        """The record number of each row, or None where the authentication code is wrong.

        Args:
            soft: (rows, CODED_BITS) float; positive means 0, the size how sure.
        """
        return [self._authentic(bits) for bits in _decode(soft)]

    def _authentic(self, bits: Bits) -> int | None:
        body = bits[NONCE_BITS:] ^ self._scramble[_to_int(bits[:NONCE_BITS])]
        version = _to_int(body[:VERSION_BITS])
        record = _to_int(body[VERSION_BITS : VERSION_BITS + RECORD_BITS])
        mac = _to_int(body[VERSION_BITS + RECORD_BITS :])
        return record if version == VERSION and mac == self._mac(version, record) else None

    def _mac(self, version: int, record: int) -> int:
        message = b"imagine watermark record" + bytes([version]) + record.to_bytes(4, "big")
        digest = hmac.digest(self._key, message, "sha256")
        return int.from_bytes(digest[:4], "big") >> (32 - MAC_BITS)


def _to_bits(value: int, count: int) -> Bits:
    return np.array([value >> (count - 1 - i) & 1 for i in range(count)], np.uint8)


def _to_int(bits: Bits) -> int:
    return int("".join(map(str, bits.tolist())), 2)


def _encode(messages: Bits) -> Bits:
    """Tail-biting: the register starts with the last bits of the message, so no tail is sent."""
    coded = np.zeros((*messages.shape, len(_GENERATORS)), np.uint8)
    for delay in range(_MEMORY + 1):
        delayed = np.roll(messages, delay, axis=1)
        for output, generator in enumerate(_GENERATORS):
            if generator >> (_MEMORY - delay) & 1:
                coded[:, :, output] ^= delayed
    return coded.reshape(len(messages), -1)


@lru_cache(maxsize=1)
def _trellis() -> tuple[NDArray[np.intp], FloatArray]:
    """Both predecessors of each state, and the two outputs (+1 for 0) on each of those edges."""
    state = np.arange(_STATES)
    before = np.stack([(state << 1 | oldest) & (_STATES - 1) for oldest in (0, 1)])
    register = before | state >> (_MEMORY - 1) << _MEMORY
    parity = [np.bitwise_count(register & generator) & 1 for generator in _GENERATORS]
    return before, 1 - 2 * np.stack(parity).astype(np.float32)


def _decode(soft: FloatArray) -> Bits:
    """Most likely messages, all rows at once. Viterbi 1967, once and a bit around the circle."""
    before, outputs = _trellis()
    pairs = soft.reshape(len(soft), -1, len(_GENERATORS))
    length = pairs.shape[1]
    steps = np.arange(-_OVERLAP, length + _OVERLAP) % length
    gain = np.einsum("rtg,gos->otrs", pairs, outputs)
    score = np.zeros((len(soft), _STATES), np.float32)
    took_second = np.zeros((len(steps), len(soft), _STATES), bool)
    for turn, step in enumerate(steps):
        first, second = (score[:, before[oldest]] + gain[oldest, step] for oldest in (0, 1))
        np.greater(second, first, out=took_second[turn])
        score = np.maximum(first, second)
    rows = np.arange(len(soft))
    state = score.argmax(axis=1)
    bits = np.zeros((len(soft), len(steps)), np.uint8)
    for turn in range(len(steps) - 1, -1, -1):
        bits[:, turn] = state >> (_MEMORY - 1)
        state = (state << 1 | took_second[turn, rows, state]) & (_STATES - 1)
    return bits[:, _OVERLAP : _OVERLAP + length]
