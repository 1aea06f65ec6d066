from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagine.errors import InvalidInput, NotMarked, StorageError
from imagine.provenance.registry import (
    NEAR,
    HashFile,
    HashRegistry,
    NearDuplicate,
    PerceptualHash,
    hashes_of_all_positions,
    perceptual_hash,
)
from imagine.provenance.watermark_report import ATTACKS, drawing

RNG = np.random.default_rng(0)


def test_the_hash_is_the_one_other_pdq_tools_compute() -> None:
    # From pdqhash 0.2.8, which wraps the reference implementation, for this drawing.
    reference = "59a16221b6560bff31a7d0dbe45b18a6c7163380b4fa7436b58d82971be68d63"
    assert perceptual_hash(drawing(2, 512)).distance(PerceptualHash.from_hex(reference)) <= 4


@pytest.mark.parametrize("name", ["JPEG q50", "0.5x", "screenshot 0.75x q80", "brightness +15 %"])
def test_a_changed_copy_is_near(name: str) -> None:
    for number in (0, 2):
        pixels = drawing(number, 256)
        copy = np.asarray(ATTACKS[name](Image.fromarray(pixels), RNG))
        assert perceptual_hash(copy).distance(perceptual_hash(pixels)) <= NEAR


def test_other_pictures_are_far() -> None:
    hashes = [perceptual_hash(drawing(number, 256)) for number in (0, 2, 4, 6, 8)]
    apart = [a.distance(b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 2 * NEAR


def test_a_plain_picture_says_that_its_hash_means_little() -> None:
    assert perceptual_hash(np.full((200, 100, 3), 7, np.uint8)).quality < 50
    assert perceptual_hash(drawing(2, 256)).quality > 50


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (63, 65), (700, 3)])
def test_any_size_has_a_hash(size: tuple[int, int]) -> None:
    assert 0 <= perceptual_hash(np.zeros((*size, 3), np.uint8)).value < 2**256


def test_a_mirrored_and_turned_copy_is_found_among_the_eight_positions() -> None:
    pixels = drawing(2, 256)
    moved = np.ascontiguousarray(np.rot90(pixels[:, ::-1]))
    near = [h.distance(perceptual_hash(pixels)) for h in hashes_of_all_positions(moved)]
    assert min(near) <= NEAR


@given(st.integers(0, 2**256 - 1))
def test_hex_reads_back(value: int) -> None:
    assert PerceptualHash.from_hex(PerceptualHash(value).hex).value == value


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "0" * 65])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="64 hex digits"):
        PerceptualHash.from_hex(text)


def test_search_finds_what_is_near_nearest_first() -> None:
    registry = HashRegistry()
    for record in range(100):
        registry.add(record, PerceptualHash((1 << 256) - (1 << record * 2 + 1)))
    wanted = PerceptualHash((1 << 256) - (1 << 21))
    found = registry.search(wanted, 4)
    assert found[0] == NearDuplicate(10, 0)
    assert [near.record for near in found] == [10, 9, 11, 8, 12]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**256 - 1)), max_size=40))
def test_a_registry_reads_back_from_its_bytes(entries: list[tuple[int, int]]) -> None:
    registry = HashRegistry((record, PerceptualHash(value)) for record, value in entries)
    again = HashRegistry.from_bytes(registry.to_bytes())
    assert len(again) == len(entries) and again.to_bytes() == registry.to_bytes()
    for record, value in entries:
        assert PerceptualHash(value) in again.hashes_of(record)


def test_a_forgotten_record_is_gone_and_the_others_stay() -> None:
    registry = HashRegistry((n % 3, PerceptualHash(n + 1)) for n in range(30))
    assert registry.remove(1) == 10 and len(registry) == 20
    assert registry.hashes_of(1) == [] and len(registry.hashes_of(2)) == 10
    assert all(near.record != 1 for near in registry.search(PerceptualHash(2), 256))
    assert (
        registry.is_forgotten(1) and not registry.is_forgotten(2) and not registry.is_forgotten(7)
    )
    assert HashRegistry.from_bytes(registry.to_bytes()).is_forgotten(1)
    registry.add(1, PerceptualHash(5))
    assert registry.hashes_of(1) == [PerceptualHash(5)]


@pytest.mark.parametrize("data", [b"", b"nonsense", HashRegistry().to_bytes() + b"x"])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="no registry"):
        HashRegistry.from_bytes(data)


def test_a_file_keeps_the_registry_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "pictures.pdq"
    assert len(HashFile(path).read()) == 0
    for record in (3, 9):
        HashFile(path).add(record, perceptual_hash(drawing(record, 128)))
    found = HashFile(path).read().search(perceptual_hash(drawing(9, 128)))
    assert [one.record for one in found] == [9]
    assert path.stat().st_mode & 0o077 == 0
    assert HashFile(path).remove(9, 77) == 1 and len(HashFile(path).read()) == 1
    assert HashFile(path).read().is_forgotten(9) and HashFile(path).remove(9) == 0
    assert perceptual_hash(drawing(9, 128)).value.to_bytes(32, "little") not in path.read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == ["pictures.pdq"]


def test_nothing_to_forget_is_no_error(tmp_path: Path) -> None:
    assert HashFile(tmp_path / "pictures.pdq").remove(1) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_registry_says_that_nothing_was_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "pictures.pdq"
    path.write_bytes(b"something else entirely, and long enough for an entry")
    with pytest.raises(StorageError, match="could not be forgotten"):
        HashFile(path).remove(1)


def test_many_may_add_while_others_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "pictures.pdq"
    for record in range(40):
        HashFile(path).add(record, PerceptualHash(5))

    def forget_some() -> None:
        for record in range(40):
            HashFile(path).remove(record)

    thread = threading.Thread(target=forget_some)
    thread.start()
    for record in range(100, 140):
        HashFile(path).add(record, PerceptualHash(5))
    thread.join()
    kept = HashFile(path).read()
    assert len(kept) == 40 and all(kept.is_forgotten(record) for record in range(40))


def test_many_may_add_to_a_file_at_once(tmp_path: Path) -> None:
    path, hashed = tmp_path / "pictures.pdq", PerceptualHash(5)

    def add_some(first: int) -> None:
        for record in range(first, first + 50):
            HashFile(path).add(record, hashed)

    threads = [threading.Thread(target=add_some, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(HashFile(path).read()) == 200


def test_half_an_entry_at_the_end_is_left_out_and_damage_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pictures.pdq"
    HashFile(path).add(3, PerceptualHash(5))
    path.write_bytes(path.read_bytes() + b"half")
    assert len(HashFile(path).read()) == 1
    path.write_bytes(b"something else entirely, and long enough for an entry")
    with pytest.raises(InvalidInput, match="backup"):
        HashFile(path).read()


def test_a_registry_that_cannot_be_written_keeps_the_picture_back(tmp_path: Path) -> None:
    with pytest.raises(NotMarked, match="could not be written"):
        HashFile(tmp_path / "missing" / "pictures.pdq").add(1, PerceptualHash(5))
