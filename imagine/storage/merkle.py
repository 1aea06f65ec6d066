"""The hash tree of RFC 6962 as pure functions: roots, proofs, and the checks of proofs.

It knows bytes and hashes only. What an entry says and who signs a root is left to `audit_log` and
`checkpoints`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 of 0x00 and the entry, 32 bytes.

    The prefix keeps leaves and nodes apart, so that no entry can pose as an inner node.
    """
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """All an append-only tree must remember to grow: the roots of its complete subtrees.

    Attributes:
        size: entries so far.
        peaks: one 32-byte root per set bit of `size`, the largest subtree first.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """The frontier with one more leaf hash."""
        peaks, node, level = list(self.peaks), leaf, self.size
        while level & 1:  # a subtree of the same size waits on the left: join them
            node = node_hash(peaks.pop(), node)
            level >>= 1
        return Frontier(self.size + 1, (*peaks, node))

    @property
    def root(self) -> bytes:
        """Root hash of the tree, 32 bytes; of no entries, the hash of nothing."""
        if not self.peaks:
            return EMPTY_ROOT
        *higher, root = self.peaks
        for peak in reversed(higher):
            root = node_hash(peak, root)
        return root

    def to_bytes(self) -> bytes:
        """The peaks end to end; with the size, enough for `from_bytes`."""
        return b"".join(self.peaks)

    @classmethod
    def from_bytes(cls, size: int, peaks: bytes) -> Frontier:
        """A frontier again.

        Raises:
            ValueError: the number of peaks is not the number of bits set in `size`.
        """
        if size < 0 or len(peaks) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"{len(peaks)} bytes of peaks do not fit a tree of {size} entries.")
        cut = range(0, len(peaks), HASH_BYTES)
        return cls(size, tuple(peaks[start : start + HASH_BYTES] for start in cut))


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root hash over leaf hashes, 32 bytes.

    Source: RFC 6962, section 2.1, MTH.
    """
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    return frontier.root


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The sibling hashes from leaf `index` up to the root over all `leaves`.

    Raises:
        ValueError: there is no such leaf.

    Source: RFC 6962, section 2.1.1, PATH.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"No leaf {index} in a tree of {len(leaves)}.")
    proof: list[bytes] = []
    first, last = 0, len(leaves)
    while last - first > 1:
        middle = first + _left_size(last - first)
        if index < middle:
            proof.append(root_of(leaves[middle:last]))
            last = middle
        else:
            proof.append(root_of(leaves[first:middle]))
            first = middle
    return tuple(reversed(proof))


def inclusion_proofs(
    indices: Iterable[int], leaves: Sequence[bytes]
) -> dict[int, tuple[bytes, ...]]:
    """`inclusion_proof` of several leaves at once: the tree is hashed once, not once for each.

    Raises:
        ValueError: there is no such leaf.
    """
    roots: dict[tuple[int, int], bytes] = {}

    def root(first: int, last: int) -> bytes:
        if last - first == 1:
            return leaves[first]
        if (first, last) not in roots:
            middle = first + _left_size(last - first)
            roots[first, last] = node_hash(root(first, middle), root(middle, last))
        return roots[first, last]

    def path(index: int) -> tuple[bytes, ...]:
        if not 0 <= index < len(leaves):
            raise ValueError(f"No leaf {index} in a tree of {len(leaves)}.")
        proof: list[bytes] = []
        first, last = 0, len(leaves)
        while last - first > 1:
            middle = first + _left_size(last - first)
            if index < middle:
                proof.append(root(middle, last))
                last = middle
            else:
                proof.append(root(first, middle))
                first = middle
        return tuple(reversed(proof))

    return {index: path(index) for index in indices}


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that `leaf` is entry `index` of the tree of `size` with this `root`.

    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    reached = leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            reached = node_hash(sibling, reached)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            reached = node_hash(reached, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and reached == root


def consistency_proof(old_size: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The hashes that lead from the tree of the first `old_size` leaves to the tree of all.

    Empty when nothing was added, and when the old tree was empty (everything extends it).

    Raises:
        ValueError: the old tree is larger than the new one.

    Source: RFC 6962, section 2.1.2, PROOF.
    """
    if not 0 <= old_size <= len(leaves):
        raise ValueError(f"A tree of {len(leaves)} cannot extend one of {old_size}.")
    if old_size in (0, len(leaves)):
        return ()
    proof: list[bytes] = []
    first, last, whole = 0, len(leaves), True
    while old_size != last:
        middle = first + _left_size(last - first)
        if old_size <= middle:
            proof.append(root_of(leaves[middle:last]))
            last = middle
        else:
            proof.append(root_of(leaves[first:middle]))
            first, whole = middle, False
    if not whole:  # the verifier holds the old root, but not the root of this part of it
        proof.append(root_of(leaves[first:last]))
    return tuple(reversed(proof))


def verify_consistency(
    old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the tree of `size` begins with all of the tree of `old_size`.

    Source: RFC 9162, section 2.1.4.2.
    """
    if not 0 <= old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # a power of two: its root is a node of the new tree
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    reached_old = reached_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            reached_old = node_hash(sibling, reached_old)
            reached_new = node_hash(sibling, reached_new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            reached_new = node_hash(reached_new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and reached_old == old_root and reached_new == root


def _left_size(size: int) -> int:
    """The largest power of two smaller than `size`: how RFC 6962 cuts a tree in two."""
    return 1 << (size - 1).bit_length() - 1
