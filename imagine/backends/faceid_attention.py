"""Attention that takes prompt and person as an argument, a row of the batch at a time.

The processors hold nothing, so a UNet that uses them remembers nobody. Which rows belong together
is checked here, before every forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from imagine.errors import CorruptWeights


@dataclass(frozen=True)
class TokenRows:
    """Keys and values of some tokens for all cross-attention layers at once.

    Attributes:
        owner: number of the request they belong to.
        keys: (rows, tokens, width); the layers lie side by side along the width, so that rows of
            many requests are put together by one copy and not by one for each layer.
        values: likewise; those of identity tokens are scaled by the request's likeness.
    """

    owner: int
    keys: Tensor = field(repr=False)
    values: Tensor = field(repr=False)


@dataclass(frozen=True)
class Attended:
    """Keys and values of a whole forward pass, padded to one length.

    Attributes:
        owners: (rows,) the request of each row.
        keys: (rows, tokens, width), all layers side by side.
        values: likewise.
        mask: (rows, 1, 1, tokens) bool, False where padded; None where nothing is.
    """

    owners: tuple[int, ...]
    keys: Tensor = field(repr=False)
    values: Tensor = field(repr=False)
    mask: Tensor | None = field(repr=False)

    def at(self, span: slice, heads: int) -> LayerTokens:
        """The keys and values of one layer; views."""
        return LayerTokens(
            _split_heads(self.keys[:, :, span], heads),
            _split_heads(self.values[:, :, span], heads),
            self.mask,
        )


class LayerTokens(NamedTuple):
    """Keys and values of one layer.

    Attributes:
        keys: (rows, heads, tokens, d).
        values: likewise.
        mask: (rows, 1, 1, tokens) bool, or None.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


class LayerConditioning(NamedTuple):
    """What one layer reads: prompts, and people where there are."""

    text: LayerTokens
    identity: LayerTokens | None


@dataclass(frozen=True)
class RowConditioning:
    """What all layers read in one forward pass: prompts, and people where there are."""

    text: Attended
    identity: Attended | None

    def at(self, span: slice, heads: int) -> LayerConditioning:
        """What one layer reads."""
        identity = None if self.identity is None else self.identity.at(span, heads)
        return LayerConditioning(self.text.at(span, heads), identity)


class OwnLayer(nn.Module):
    """Stands around a transformer block and hands it the keys and values of its own layer.

    The block itself must not know where its layer lies: `compile_repeated_blocks` compiles blocks
    once for all, and a number read inside would be compiled in as a constant, anew for each of
    SDXL's 70 layers, until torch gives up at the eighth.
    """

    def __init__(self, block: nn.Module, span: slice, heads: int) -> None:
        super().__init__()
        self.block = block
        self.span, self.heads = span, heads

    def forward(
        self,
        hidden_states: Tensor,
        *,
        cross_attention_kwargs: dict[str, RowConditioning],
        **others: Any,
    ) -> Tensor:
        """(rows, places, channels) in and out; the rest as diffusers' BasicTransformerBlock."""
        own = cross_attention_kwargs["conditioning"].at(self.span, self.heads)
        drawn: Tensor = self.block(
            hidden_states, cross_attention_kwargs={"conditioning": own}, **others
        )
        return drawn


class PromptAndPersonAttention:
    """Cross-attention to a prompt and, beside it, to a person.

    Source: decoupled cross-attention, IP-Adapter, arXiv 2308.06721, eq. 5, with a strength of its
    own for every row.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *,
        conditioning: LayerConditioning,
    ) -> Tensor:
        """Attend with every row's own keys and values; (rows, places, channels) in and out."""
        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        found = _attend(query, *conditioning.text)
        if conditioning.identity is not None:
            found = found + _attend(query, *conditioning.identity)
        joined: Tensor = attn.to_out[0](found.transpose(1, 2).flatten(2))
        return joined


class OwnAttention:
    """Self-attention within each picture; takes and ignores the conditioning of its neighbours."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *,
        conditioning: LayerConditioning | None = None,
    ) -> Tensor:
        """Attend to the picture itself; (rows, places, channels) in and out."""
        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        keys = _split_heads(attn.to_k(hidden_states), attn.heads)
        found = _attend(query, keys, _split_heads(attn.to_v(hidden_states), attn.heads), None)
        joined: Tensor = attn.to_out[0](found.transpose(1, 2).flatten(2))
        return joined


@dataclass(frozen=True)
class KeyValueMatrices:
    """The key and value matrices of all cross-attention layers, as one matrix each.

    Attributes:
        keys: (width of all layers, token width).
        values: likewise.
    """

    keys: Tensor = field(repr=False)
    values: Tensor = field(repr=False)

    def project(self, owner: int, tokens: Tensor, strength: float = 1.0) -> TokenRows:
        """Keys and values of (rows, tokens, token width); values times `strength`.

        Counted where the matrices are, which a memory plan may leave in the machine's memory.
        """
        known = tokens.to(self.keys.device, self.keys.dtype)
        values = functional.linear(known, self.values) * strength
        keys = functional.linear(known, self.keys)
        return TokenRows(owner, keys.to(tokens.device), values.to(tokens.device))

    def to(self, device: str) -> KeyValueMatrices:
        """The same matrices on a device."""
        return KeyValueMatrices(self.keys.to(device), self.values.to(device))


def take_over_attention(
    unet: Any, person_keys: Sequence[Tensor], person_values: Sequence[Tensor], adapter: Path
) -> tuple[KeyValueMatrices, KeyValueMatrices]:
    """Put our processors into a UNet and take its text matrices out.

    LoRA must have been fused before: it changes the matrices taken out.

    Args:
        unet: diffusers' UNet2DConditionModel; changed.
        person_keys: matrix of each cross-attention layer, in the UNet's own order.
        person_values: likewise.
        adapter: where they came from, for messages.

    Returns:
        The matrices of text and of identity tokens.

    Raises:
        CorruptWeights: adapter and UNet do not fit together.
    """
    modules = {layer: unet.get_submodule(layer) for layer in attention_layers(unet)}
    crossing = [module for module in modules.values() if module.is_cross_attention]
    for module, *found in zip(crossing, person_keys, person_values, strict=True):
        wanted = module.to_k.weight.shape
        if any(matrix.shape != wanted for matrix in found):
            raise CorruptWeights(
                f"{adapter} was made for another base model: its identity keys are "
                f"{tuple(found[0].shape)} where this UNet has {tuple(wanted)}. "
                "Choose the adapter with the name of this base (sd15 or sdxl) in its own."
            )
    like = crossing[0].to_k.weight
    person = KeyValueMatrices(
        torch.cat([matrix.to(like.device, like.dtype) for matrix in person_keys]),
        torch.cat([matrix.to(like.device, like.dtype) for matrix in person_values]),
    )
    text = KeyValueMatrices(
        torch.cat([module.to_k.weight.detach() for module in crossing]),
        torch.cat([module.to_v.weight.detach() for module in crossing]),
    )
    widths = [len(matrix) for matrix in person_keys]
    spans = iter(slice(end - n, end) for end, n in zip(accumulate(widths), widths, strict=True))
    for layer, module in modules.items():
        if not module.is_cross_attention:
            module.processor = OwnAttention()
            continue
        module.processor = PromptAndPersonAttention()
        module.to_k = module.to_v = None  # they are in `text` now
        blocks, _, place = layer.removesuffix(".attn2").rpartition(".")
        neighbours = unet.get_submodule(blocks)
        neighbours[int(place)] = OwnLayer(neighbours[int(place)], next(spans), module.heads)
    return text, person


def attention_layers(unet: Any) -> list[str]:
    """Names of all attention layers in the order adapters count them: down, up, middle.

    Raises:
        CorruptWeights: the UNet has attention of a kind our processors do not do.
    """
    layers = [name.removesuffix(".processor") for name in unet.attn_processors]
    for number, layer in enumerate(layers):
        module = unet.get_submodule(layer)
        is_plain = (
            module.group_norm is None
            and module.spatial_norm is None
            and not module.residual_connection
            and module.rescale_output_factor == 1.0
            and not module.norm_cross
            and module.norm_q is None
            and module.is_cross_attention == layer.endswith("attn2") == (number % 2 == 1)
        )
        if not is_plain:
            raise CorruptWeights(
                f"The attention layer {layer} is not like those of SD 1.5 and SDXL, for which this "
                "backend was made. Choose a base model of that family."
            )
    return layers


def stack_rows(parts: Sequence[tuple[TokenRows | None, int, slice]]) -> Attended:
    """Lay the tokens of many requests side by side, padded, never shared.

    Args:
        parts: tokens, number and rows of each request; None for nobody.
    """
    known = [tokens for tokens, _, _ in parts if tokens is not None]
    width, like = known[0].keys.shape[-1], known[0].keys
    longest = max(tokens.keys.shape[1] for tokens in known)
    keys, values, lengths, owners = [], [], [], []
    for tokens, owner, own in parts:
        if tokens is None:
            # Nobody: one token of zeros, which adds nothing; attention over no token would be NaN.
            empty = like.new_zeros((2, 1, width))[own]
            tokens = TokenRows(owner, empty, empty)
            own = slice(None)
        keys.append(tokens.keys[own])
        values.append(tokens.values[own])
        lengths += [keys[-1].shape[1]] * len(keys[-1])
        owners += [tokens.owner] * len(keys[-1])
    mask = None
    if min(lengths) < longest:
        real = torch.arange(longest) < torch.tensor(lengths)[:, None]
        mask = real[:, None, None].to(like.device)
    if len(keys) == 1:
        return Attended(tuple(owners), keys[0], values[0], mask)
    return Attended(tuple(owners), _pad_rows(keys, longest), _pad_rows(values, longest), mask)


def check_owners(rows: int, owners: tuple[int, ...], conditioning: RowConditioning) -> None:
    """Refuse a forward pass in which a row could see the prompt or person of another.

    Stock attention takes two people for four rows without a word and mixes them; see diffusers'
    IPAdapterAttnProcessor2_0, which reshapes by the rows of the latents. Raised, not asserted,
    because `python -O` must not remove it.

    Raises:
        AssertionError: numbers or owners differ.
    """
    for what, attended in (("text", conditioning.text), ("identity", conditioning.identity)):
        if attended is None:
            continue
        if not rows == len(owners) == len(attended.keys) == len(attended.values):
            raise AssertionError(
                f"{rows} rows of latents met {len(attended.keys)} rows of {what}; nothing is drawn."
            )
        if attended.owners != owners:
            raise AssertionError(f"Rows met the {what} of another request; nothing is drawn.")


def _pad_rows(parts: list[Tensor], length: int) -> Tensor:
    return torch.cat([functional.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts])


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(rows, tokens, heads * d) -> (rows, heads, tokens, d), a view."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
