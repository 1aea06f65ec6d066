from __future__ import annotations

import numpy as np
import pytest

from imagine.core import FloatArray
from imagine.provenance.payload import CODED_BITS, MAX_RECORD, NONCES, PayloadCode

KEY = b"k" * 32


def said(code: PayloadCode, record: int) -> FloatArray:
    return (1 - 2 * code.messages(record).astype(np.float32)).astype(np.float32)


@pytest.mark.parametrize("record", [0, 1, 123_456_789, MAX_RECORD])
def test_every_way_of_saying_a_record_reads_back(record: int) -> None:
    code = PayloadCode(KEY)
    assert code.read(said(code, record)) == [record] * NONCES


def test_the_ways_of_saying_a_record_differ_in_about_half_of_the_bits() -> None:
    messages = PayloadCode(KEY).messages(7)
    apart = (messages[0] != messages[1:]).sum(axis=1)
    assert apart.min() > CODED_BITS * 0.25 and abs(apart.mean() - CODED_BITS / 2) < 10


def test_one_bit_in_twelve_may_be_wrong() -> None:
    code, rng = PayloadCode(KEY), np.random.default_rng(0)
    soft = said(code, 99)[:20]
    for row in soft:
        row[rng.choice(CODED_BITS, CODED_BITS // 12, replace=False)] *= -1
    assert code.read(soft).count(99) >= 19


def test_another_key_reads_nothing() -> None:
    assert not any(PayloadCode(b"x" * 32).read(said(PayloadCode(KEY), 99)))


def test_noise_says_nothing() -> None:
    noise = np.random.default_rng(1).normal(size=(300, CODED_BITS)).astype(np.float32)
    assert PayloadCode(KEY).read(noise) == [None] * 300
