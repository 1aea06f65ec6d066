"""The hash tree against published vectors, and its laws against random trees."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from imagine.storage.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    inclusion_proofs,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves, roots and proofs that the Certificate Transparency code publishes as test
# vectors for RFC 6962; every implementation checks itself against them.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
N01 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
N67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N0123 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
N4567 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
L0 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
L1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
L4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
INCLUSION = [
    (0, 1, []),
    (0, 8, [L1, N01, N4567]),
    (5, 8, [L4, N67, N0123]),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (1, 5, [L0, N01, L4]),
]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [L1, N01, N4567]),
    (6, 8, [N45, N67, N0123]),
    (2, 5, [N01, L4]),
    (
        3,
        7,
        [
            "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
            "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "837dbb152e9b079010717e84e865da4ebc0fa198a806d59d31bf15accef22d0e",
        ],
    ),
]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]

trees = some.integers(1, 70).map(lambda size: [leaf_hash(bytes([i])) for i in range(size)])


@pytest.mark.parametrize("size", range(9))
def test_the_root_of_every_size_is_the_published_one(size: int) -> None:
    assert root_of(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int, path: list[str]) -> None:
    proof = inclusion_proof(index, LEAVES[:size])
    assert [node.hex() for node in proof] == path
    assert verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "size", "path"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(old: int, size: int, path: list[str]) -> None:
    proof = consistency_proof(old, LEAVES[:size])
    assert [node.hex() for node in proof] == path
    old_root, root = bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size])
    assert verify_consistency(old, size, old_root, root, proof)


def test_a_leaf_and_a_node_of_the_same_bytes_have_different_hashes() -> None:
    left, right = LEAVES[0], LEAVES[1]
    assert leaf_hash(left + right) != node_hash(left, right)
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 6962's definition word by word, slow and obviously right."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else EMPTY_ROOT
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    return node_hash(plain_root(leaves[:cut]), plain_root(leaves[cut:]))


@given(trees)
def test_growing_leaf_by_leaf_gives_the_root_of_the_definition(leaves: list[bytes]) -> None:
    assert root_of(leaves) == plain_root(leaves)


@given(trees)
def test_a_frontier_survives_being_stored(leaves: list[bytes]) -> None:
    frontier = Frontier()
    for leaf in leaves:
        frontier = Frontier.from_bytes(frontier.size, frontier.to_bytes()).append(leaf)
    assert frontier.root == plain_root(leaves)
    assert frontier.size == len(leaves)


def test_a_frontier_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes of peaks do not fit a tree of 4"):
        Frontier.from_bytes(4, bytes(64))


@given(trees, some.data())
def test_every_leaf_is_proven_and_only_in_its_place(
    leaves: list[bytes], data: some.DataObject
) -> None:
    size = len(leaves)
    index = data.draw(some.integers(0, size - 1))
    proof, root = inclusion_proof(index, leaves), root_of(leaves)
    assert verify_inclusion(leaves[index], index, size, proof, root)
    elsewhere = data.draw(some.integers(-1, size).filter(lambda other: other != index))
    assert not verify_inclusion(leaves[index], elsewhere, size, proof, root)
    assert not verify_inclusion(leaf_hash(b"another"), index, size, proof, root)
    assert not verify_inclusion(leaves[index], index, size, (*proof, root), root)
    assert not proof or not verify_inclusion(leaves[index], index, size, proof[1:], root)


@given(trees, some.data())
def test_a_flipped_bit_anywhere_in_a_proof_is_noticed(
    leaves: list[bytes], data: some.DataObject
) -> None:
    size = len(leaves)
    old = data.draw(some.integers(1, size))
    index = data.draw(some.integers(0, size - 1))
    inclusion, consistency = inclusion_proof(index, leaves), consistency_proof(old, leaves)
    root, old_root = root_of(leaves), root_of(leaves[:old])
    for place in range(len(inclusion)):
        assert not verify_inclusion(leaves[index], index, size, flipped(inclusion, place), root)
    for place in range(len(consistency)):
        assert not verify_consistency(old, size, old_root, root, flipped(consistency, place))


@given(trees, some.data())
def test_every_tree_is_proven_to_extend_its_own_past_only(
    leaves: list[bytes], data: some.DataObject
) -> None:
    size = len(leaves)
    old = data.draw(some.integers(0, size))
    proof, root, old_root = consistency_proof(old, leaves), root_of(leaves), root_of(leaves[:old])
    assert verify_consistency(old, size, old_root, root, proof)
    if old:
        another_past = root_of([*leaves[: old - 1], leaf_hash(b"another")])
        assert not verify_consistency(old, size, another_past, root, proof)
        assert not verify_consistency(old, size, old_root, leaf_hash(b"another"), proof)
        assert not verify_consistency(old, size, old_root, root, (*proof, root))


@pytest.mark.parametrize(("index", "size"), [(8, 8), (-1, 8), (0, 0)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="No leaf"):
        inclusion_proof(index, LEAVES[:size])
    assert not verify_inclusion(LEAVES[0], index, size, (), LEAVES[0])


def test_a_smaller_tree_never_extends_a_larger_one() -> None:
    with pytest.raises(ValueError, match="cannot extend"):
        consistency_proof(5, LEAVES[:4])
    assert not verify_consistency(5, 4, LEAVES[0], LEAVES[0], ())


def test_an_empty_proof_does_not_show_growth() -> None:
    assert not verify_consistency(3, 8, root_of(LEAVES[:3]), root_of(LEAVES), ())


def flipped(proof: tuple[bytes, ...], place: int) -> list[bytes]:
    changed = list(proof)
    changed[place] = bytes([changed[place][0] ^ 1]) + changed[place][1:]
    return changed


def test_many_proofs_at_once_are_those_made_one_by_one() -> None:
    for size in (1, 2, 3, 7, 8, 13, 64, 100):
        leaves = [leaf_hash(str(number).encode()) for number in range(size)]
        wanted = range(0, size, 3)
        assert inclusion_proofs(wanted, leaves) == {
            index: inclusion_proof(index, leaves) for index in wanted
        }
    with pytest.raises(ValueError, match="No leaf"):
        inclusion_proofs([100], leaves)
