from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from imagine.service import payloads
from tests.service.conftest import House


def test_a_wish_sealed_before_there_were_shapes_is_drawn_as_a_square(
    home: House, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_before(payload: Any) -> dict[str, Any]:
        facts = asdict(payload)
        assert facts["wish"].pop("aspect_ratio") == "1:1"
        return facts

    monkeypatch.setattr(payloads, "asdict", as_before)
    (image,) = home.generate(me, seed=7)["images"]
    assert (image["width"], image["height"]) == (128, 128)
