"""Forward passes recorded once for each shape and played back, so that no launch is waited for.

It helps where the kernels are shorter than their launches: small pictures, few rows. Every shape
that is seen often has a recording of its own; the rarest used is dropped.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

MOST_GRAPHS = 8  # each holds the activations of its shape
CALLS_BEFORE_RECORDING = 3  # also lets kernels be chosen and compiled first
KNOWN_SHAPES = 1000

# Runs a call so that the function returned runs it again on the same tensors; and its result.
Record = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]


@dataclass
class _Recording:
    """A pass of one shape: where its inputs lie, how to play it, where its result lies."""

    inputs: list[Tensor] = field(repr=False)
    play: Callable[[], object]
    result: Any = field(repr=False)


class ShapedGraphs:
    """Stands in for a module's `forward`.

    Arguments may be tensors, numbers, and tuples, lists, dicts and frozen dataclasses of them. All
    but the tensors must be the same for a recording to be used, except fields named `owners`: they
    say whose rows those are and take no part in the arithmetic.

    Args:
        forward: what is recorded; must do the same work for the same shapes.
        record: how a call is recorded; tests hand in their own.
    """

    def __init__(self, forward: Callable[..., Any], record: Record | None = None) -> None:
        self._forward = forward
        self._record = record or record_on_cuda
        self._seen: Counter[object] = Counter()
        self._recordings: OrderedDict[object, _Recording] = OrderedDict()

    def __len__(self) -> int:
        return len(self._recordings)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What `forward` gives, in tensors of the caller's own."""
        given = (arguments, named)
        shape = _shape(given)
        recording = self._recordings.get(shape)
        if recording is None:
            self._seen[shape] += 1
            if self._seen[shape] <= CALLS_BEFORE_RECORDING:
                if len(self._seen) > KNOWN_SHAPES:
                    self._seen.clear()
                return self._forward(*arguments, **named)
            recording = self._recorded(shape, given)
        self._recordings.move_to_end(shape)
        for own, new in zip(recording.inputs, _tensors(given), strict=True):
            own.copy_(new)
        recording.play()
        return _mapped(recording.result, Tensor.clone)

    def _recorded(self, shape: object, given: tuple[tuple[Any, ...], dict[str, Any]]) -> _Recording:
        arguments, named = _mapped(given, Tensor.clone)
        play, result = self._record(lambda: self._forward(*arguments, **named))
        recording = _Recording(_tensors((arguments, named)), play, result)
        self._recordings[shape] = recording
        if len(self._recordings) > MOST_GRAPHS:
            self._recordings.popitem(last=False)
        return recording


def record_on_cuda(call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
    """Record a call as a CUDA graph.

    Source: torch's notes on CUDA graphs; the call runs on a side stream first, because libraries
    set themselves up at their first call, which must not be recorded.
    """
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result


def _shape(value: Any) -> object:
    """What must be equal for two calls to share a recording."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device)
    if is_dataclass(value) and not isinstance(value, type):
        parts = [(f.name, getattr(value, f.name)) for f in fields(value) if f.name != "owners"]
        return (type(value), tuple((name, _shape(part)) for name, part in parts))
    if isinstance(value, Mapping):
        return tuple((name, _shape(part)) for name, part in sorted(value.items()))
    if isinstance(value, tuple | list):
        return tuple(_shape(part) for part in value)
    return value


def _tensors(value: Any) -> list[Tensor]:
    """All tensors inside a value, always in the same order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(value, note)
    return found


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a value with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _mapped(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **parts)
    if isinstance(value, Mapping):
        return {name: _mapped(part, change) for name, part in sorted(value.items())}
    if isinstance(value, tuple | list):
        mapped = [_mapped(part, change) for part in value]
        return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)
    return value
