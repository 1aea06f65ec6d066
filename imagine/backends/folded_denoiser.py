"""The denoiser's forward pass for drawing: the same sums as `Denoiser.forward`, fewer of them.

What a pass need not do again or at all:
- the rows of one picture (nothing, prompt, prompt + person) see the same noisy pixels, so patches
  are read once a picture; their weighted sum is taken before the last layer, which is linear;
- attention to a single token is that token: rows without prompt or person add a constant;
- time and prompt modulate the blocks by numbers known when the request comes, for all its steps;
- the query norm's weight sits in the keys, the identity gate in the values, every norm's weight in
  the modulation; matrices are packed (`packed_linear`).
Rows of a pass never share a sum, so a picture's bits do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from imagine.backends.packed_linear import PackedLinear
from imagine.models.blocks import FeedForward, RMSNorm, SelfAttention, timestep_embedding
from imagine.models.denoiser import Denoiser
from imagine.models.parallel_attention import KeyValue, ParallelAttention, SourceProjection

EPSILON = 1e-6  # of every norm, as in `RMSNorm`


@dataclass(frozen=True)
class Look:
    """One row of a pass: what it is shown of its picture's wishes, and its weight in the estimate.

    Attributes:
        owner: place of its picture among the pictures of the pass.
        weight: of its estimate; the weights of a picture add up to one.
        modulation: (6, width), of its step, with or without the prompt.
        text: per block, keys and values of the prompt, (1, heads, tokens, d); None shows none.
        identity: the same of the person; wants `text`.
    """

    owner: int
    weight: float
    modulation: Tensor = field(repr=False)
    text: Sequence[KeyValue] | None = field(repr=False)
    identity: Sequence[KeyValue] | None = field(repr=False)


class FoldedDenoiser:
    """A denoiser's weights arranged for drawing; of later changes only some would be seen."""

    @torch.no_grad()
    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        attention = denoiser._cross_attentions()
        gates = [cross.identity_gate.detach() for cross in attention]
        self._text = _AllProjections([c.text for c in attention], attention)
        self._identity = _AllProjections([c.identity for c in attention], attention, gates)
        # Attention to the one learned empty token gives its value, whatever the query.
        no_person = [value for _, value in self._identity(denoiser.no_identity)]
        no_prompt = [value for _, value in self._text(denoiser.no_text)]
        self._nobody = _constants(attention, no_person)
        self._nothing = _constants(
            attention, [a + b for a, b in zip(no_prompt, no_person, strict=True)]
        )
        self._blocks = [_Block(block) for block in denoiser.blocks]
        self._factor = torch.stack([block.factor for block in self._blocks])
        self._offset = torch.stack([block.offset for block in self._blocks])
        self._tokens = _packed(denoiser.patches.expand)
        self._pieces = _packed(denoiser.unpatches.project)

    def project_text(self, tokens: Tensor) -> list[KeyValue]:
        """Keys and values of (1, tokens, text_width) of the text encoder, per block."""
        return self._text(self._denoiser.text_norm(tokens))

    def project_identity(self, tokens: Tensor) -> list[KeyValue]:
        """Keys and values of (1, tokens, identity_width) of the identity adapter, per block."""
        return self._identity(tokens)

    def modulation(self, sigmas: Tensor, text: Tensor | None) -> Tensor:
        """How time and prompt shape the blocks, (steps, 6, width).

        Args:
            sigmas: (steps,) noise levels of a whole request.
            text: (1, tokens, text_width) of the text encoder; None for nothing asked.
        """
        model = self._denoiser
        pooled = model.no_text[0] if text is None else model.text_norm(text).mean(1)
        embedding = model.time(timestep_embedding(sigmas, 256)) + model.text_pooled(pooled)
        modulation: Tensor = model.modulation(embedding)
        return modulation.view(len(sigmas), 6, -1)

    def __call__(self, images: Tensor, looks: Sequence[Look]) -> Tensor:
        """Guided estimates of the clean images.

        Args:
            images: (pictures, 3, size, size) float, noisy.
            looks: rows in any order; every picture has at least one.

        Returns:
            (pictures, 3, size, size), in about [-1, 1].
        """
        # Rows with a person, then with a prompt only, then with neither.
        rows = sorted(looks, key=lambda look: (look.identity is None, look.text is None))
        owners = torch.tensor([look.owner for look in rows], device=images.device)
        weights = torch.tensor([look.weight for look in rows], device=images.device)
        model = self._denoiser
        tokens = self._tokens(model.patches.reduce(images).flatten(2).transpose(1, 2))
        hidden = (tokens + model.positions)[owners]
        own = torch.stack([look.modulation for look in rows])
        modulation = torch.addcmul(self._offset, own[:, None], self._factor).unsqueeze(3)
        texts = [look.text for look in rows if look.text is not None]
        people = [look.identity for look in rows if look.identity is not None]
        assert len(people) <= len(texts) <= len(rows)
        for index, block in enumerate(self._blocks):
            shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation[:, index].unbind(1)
            hidden.addcmul_(block.attend(torch.addcmul(shift_a, _unit(hidden), scale_a)), gate_a)
            if texts:
                hidden[: len(texts)] += block.look(
                    hidden[: len(texts)],
                    [text[index] for text in texts],
                    [person[index] for person in people],
                )
            hidden[len(people) : len(texts)] += self._nobody[index]
            hidden[len(texts) :] += self._nothing[index]
            hidden.addcmul_(block.feed(torch.addcmul(shift_f, _unit(hidden), scale_f)), gate_f)
        shares = model.final_norm(hidden).mul_(weights[:, None, None])
        mixed = torch.zeros_like(tokens).index_add_(0, owners, shares)
        size = (images.shape[2], images.shape[3])
        last = model.unpatches
        return functional.fold(
            self._pieces(mixed).transpose(1, 2),
            size,
            kernel_size=last.kernel,
            stride=last.patch,
            padding=last.patch // 4,
        )


class _Block:
    """One transformer block, folded."""

    def __init__(self, block: nn.Module) -> None:
        attention = cast("SelfAttention", block.attention)
        cross = cast("ParallelAttention", block.cross)
        feed = cast("FeedForward", block.feed_forward)
        self._heads = attention.heads
        self._to_qkv, self._to_out = _packed(attention.to_qkv), _packed(attention.to_out)
        self._norms = torch.stack([attention.query_norm.weight, attention.key_norm.weight])[:, None]
        self._cross_norm = cast("RMSNorm", block.cross_norm)
        self._to_query, self._cross_out = _packed(cross.to_query), _packed(cross.to_out)
        self._expand = PackedLinear(feed.expand.weight, gelu=True).forward
        self._contract = _packed(feed.contract)
        modulation = cast("Tensor", block.modulation)
        one = torch.ones_like(modulation[0])
        scales = [
            cast("RMSNorm", n).weight for n in (block.attention_norm, block.feed_forward_norm)
        ]
        # shift, (1 + scale) * norm's weight, 1 + gate; twice: attention, feed-forward
        self.factor = torch.stack([one, scales[0], one, one, scales[1], one]).detach()
        adding = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], device=one.device)[:, None]
        self.offset = ((modulation + adding) * self.factor).detach()

    def attend(self, hidden: Tensor) -> Tensor:
        """Self-attention, (rows, tokens, width)."""
        rows, count, _ = hidden.shape
        qkv = self._to_qkv(hidden).view(rows, count, 3, self._heads, -1)
        _unit_(qkv[:, :, :2]).mul_(self._norms)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        return self._to_out(_attention(query, key, value))

    def look(self, hidden: Tensor, texts: list[KeyValue], people: list[KeyValue]) -> Tensor:
        """Attention to prompts, of the first rows to people too, (rows, tokens, width)."""
        rows, count, _ = hidden.shape
        query = self._to_query(self._cross_norm(hidden)).view(rows, count, self._heads, -1)
        query = _unit_(query).transpose(1, 2)
        # Row by row: prompts differ in length, and padding would cost more than it saves.
        seen = [
            _attention(query[row : row + 1], key, value) for row, (key, value) in enumerate(texts)
        ]
        for row, (key, value) in enumerate(people):
            seen[row] += _attention(query[row : row + 1], key, value)
        return self._cross_out(torch.cat(seen))

    def feed(self, hidden: Tensor) -> Tensor:
        """Feed-forward, (rows, tokens, width)."""
        return self._contract(self._expand(hidden))


class _AllProjections:
    """Keys and values of one source for all blocks in one product."""

    def __init__(
        self,
        sources: Sequence[SourceProjection],
        attention: Sequence[ParallelAttention],
        gates: Sequence[Tensor] | None = None,
    ) -> None:
        self._blocks, self._heads = len(sources), sources[0].heads
        self._linear = PackedLinear(torch.cat([source.to_kv.weight for source in sources])).forward
        self._norms = torch.stack(
            [
                source.key_norm.weight * cross.query_norm.weight
                for source, cross in zip(sources, attention, strict=True)
            ]
        )[:, None, None]
        self._gates: Tensor | None = None
        if gates is not None:
            self._gates = torch.stack(list(gates)).view(self._blocks, 1, self._heads, -1)

    def __call__(self, tokens: Tensor) -> list[KeyValue]:
        count, heads = tokens.shape[1], self._heads
        both = self._linear(tokens[0]).view(count, self._blocks, 2, heads, -1).transpose(0, 1)
        key, value = _unit(both[:, :, 0]) * self._norms, both[:, :, 1]
        if self._gates is not None:
            value = value * self._gates
        # (blocks, 1, heads, tokens, d), laid out so that a head's tokens lie together
        keys = key.transpose(1, 2)[:, None].contiguous()
        values = value.transpose(1, 2)[:, None].contiguous()
        return list(zip(keys.unbind(0), values.unbind(0), strict=True))


def _packed(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    # The method itself: a module's call looks for hooks each time and has no type.
    return PackedLinear.of(linear).forward


def _constants(attention: Sequence[ParallelAttention], values: Sequence[Tensor]) -> list[Tensor]:
    """What rows add that see one token only, per block (width,)."""
    return [
        cross.to_out(value.transpose(1, 2).flatten())
        for cross, value in zip(attention, values, strict=True)
    ]


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(rows, heads, tokens, d) each to (rows, tokens, width)."""
    output = functional.scaled_dot_product_attention(query, key, value)
    return output.transpose(1, 2).flatten(2)


def _unit(hidden: Tensor) -> Tensor:
    """Root-mean-square norm without a weight."""
    return functional.rms_norm(hidden, (hidden.shape[-1],), eps=EPSILON)


def _unit_(hidden: Tensor) -> Tensor:
    """As `_unit`, in place; torch's kernel would copy a view first and take twice as long."""
    size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    size.square_().div_(hidden.shape[-1]).add_(EPSILON).rsqrt_()
    return hidden.mul_(size)
