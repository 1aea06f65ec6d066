"""A small recogniser of faces, trained on renders, for the likeness loss of training."""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

FACE_SIZE = 64  # side of the aligned faces it takes, pixels


class FaceRecogniser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Aligned (batch, 3, 64, 64) faces in [-1, 1] to unit vectors, with its feature maps."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 32, embedding: int = 128) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.GroupNorm(8, outputs),
                nn.SiLU(),
            )

        self.stages = nn.ModuleList(
            [
                nn.Sequential(block(3, width, 2), block(width, width, 1)),
                nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width, 1)),
                nn.Sequential(block(2 * width, 4 * width, 2), block(4 * width, 4 * width, 1)),
                nn.Sequential(block(4 * width, 6 * width, 2), block(6 * width, 6 * width, 1)),
            ]
        )
        self.head = nn.Linear(6 * width * 16, embedding)

    def forward(self, faces: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return (batch, embedding) unit vectors and the feature maps of the four stages."""
        features = []
        for stage in self.stages:
            faces = stage(faces)
            features.append(faces)
        return functional.normalize(self.head(faces.flatten(1)).float(), dim=1), features


def align_batch(images: Tensor, thetas: Tensor, size: int = FACE_SIZE) -> Tensor:
    """Differentiable aligned faces of (batch, 3, h, w) images; thetas (batch, 2, 3)."""
    shape = [len(images), images.shape[1], size, size]
    grid = functional.affine_grid(thetas.float(), shape, align_corners=False)
    faces: Tensor = functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return faces
