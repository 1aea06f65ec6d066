"""How far a face on an upright crop looks to one side.

Crops are set upright by eyes and nose, so on a face that looks aside one side of the fine light
and shade is no mirror of the other. A linear reading of that difference is enough; it is taught on
rendered people, whose turn is known.
"""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from imagine.models.face_detail import fine

SIZE = 32  # side at which crops are looked at, pixels
# Turns up to the first show both eyes as a face from the front has them; from the second on one
# eye is seen from the side and fits no other view. Measured, training/LOG.md.
FRONTAL, ASIDE = 0.1, 0.25


class FaceTurn(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Upright crops to turns: how far the nose is off the middle of the eyes, in eye distances."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(_DOWN * _ACROSS, 1, bias=False)

    def forward(self, crops: Tensor) -> Tensor:
        """(photos,) turns, negative to the left of the picture, of (photos, 3, s, s) in [-1, 1]."""
        turns: Tensor = self.read(differences(crops)).squeeze(1)
        return turns


_TOP, _LEFT = SIZE // 6, SIZE // 8  # what is beyond is hair and background
_DOWN, _ACROSS = SIZE - 2 * _TOP, SIZE // 2 - _LEFT


def differences(crops: Tensor) -> Tensor:
    """(photos, d): fine light and shade of the left half of faces less that of the right, mirrored.

    Args:
        crops: (photos, 3, s, s) float in [-1, 1], upright and masked.
    """
    small = functional.interpolate(crops.float(), size=(SIZE, SIZE), mode="area")
    light = fine(small)
    light = light / (light.std(dim=(1, 2, 3), keepdim=True) + 1e-3)
    left = light[:, 0, _TOP : SIZE - _TOP, _LEFT : SIZE // 2]
    right = light[:, 0, _TOP : SIZE - _TOP, SIZE // 2 : SIZE - _LEFT].flip(2)
    return (left - right).flatten(1)


def looking_ahead(turns: Tensor) -> tuple[Tensor, float]:
    """Which photos show the face from the front, and how much of it they show so.

    Args:
        turns: (photos,) of `FaceTurn`.

    Returns:
        (photos,) bool, at least one true; and 1 where that is a face from the front, falling to 0
        where it looks aside.
    """
    least = float(turns.abs().min())
    share = min(1.0, max(0.0, (ASIDE - least) / (ASIDE - FRONTAL)))
    return turns.abs() <= max(FRONTAL, least), share
