"""A critic that learns to tell drawn pictures from photos, so that teachers cannot be fooled.

Rewards alone are also paid for patterns that no camera makes (training/LOG.md). The critic grows
with the model: it is taught on the photos of the batch and the pictures just drawn from them, looks
at the whole picture and closely at the face, and judges every place of both on its own.

Source: hinge loss of arXiv 1705.02894, spectral norm of arXiv 1802.05957, judging places as in
arXiv 1611.07004; beside a diffusion loss as in arXiv 2311.17042.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from imagine.models.face_recogniser import aligned
from training.checkpoints import save_whole
from training.disturb import soften

LEARNING_RATE = 4e-4
FACE_SIZE = 64
WARM_UP_STEPS = 150  # until the critic's word counts in full


class _Tower(nn.Sequential):
    """(batch, 3, s, s) pictures to (batch, 1, s / 8, s / 8) marks, high for photos."""

    def __init__(self, width: int) -> None:
        def layer(inputs: int, outputs: int, stride: int) -> nn.Module:
            kernel = 4 if stride == 2 else 3
            return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, 1))

        super().__init__(
            layer(3, width, 2),
            nn.LeakyReLU(0.2),
            layer(width, 2 * width, 2),
            nn.LeakyReLU(0.2),
            layer(2 * width, 4 * width, 2),
            nn.LeakyReLU(0.2),
            layer(4 * width, 4 * width, 1),
            nn.LeakyReLU(0.2),
            layer(4 * width, 1, 1),
        )


class Critic(nn.Module):
    """Marks of the whole picture and of the aligned face."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.whole = _Tower(width)
        self.face = _Tower(width)

    def forward(self, pictures: Tensor, thetas: Tensor) -> tuple[Tensor, Tensor]:
        """Mark (batch, 3, h, w) pictures in [-1, 1]; thetas (batch, 2, 3) say where faces are."""
        faces = aligned(pictures, thetas, FACE_SIZE)
        return self.whole(soften(pictures)), self.face(soften(faces))


class CriticTraining:
    """The critic with its optimiser; one call a step."""

    def __init__(self, device: str, path: Path | None = None, width: int = 32) -> None:
        """Start anew, or from `path` where there is something."""
        self.critic = Critic(width).to(device)
        self._optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=LEARNING_RATE, betas=(0.0, 0.99)
        )
        self._path = path
        self.steps = 0
        if path is not None and path.exists():
            stored = torch.load(path, map_location=device, weights_only=True)
            self.critic.load_state_dict(stored["critic"])
            self._optimizer.load_state_dict(stored["optimizer"])
            self.steps = int(stored["steps"])

    def save(self) -> None:
        """Keep all of it beside the checkpoint of the run."""
        if self._path is None:
            return
        stored = {
            "critic": self.critic.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
        }
        save_whole(self._path, stored)

    def loss(self, drawn: Tensor, photos: Tensor, thetas: Tensor) -> Tensor:
        """Teach the critic, then say how far the drawn pictures are from passing as photos.

        Args:
            drawn: (rows, 3, h, w) with a graph.
            photos: (rows, 3, h, w), true pictures.
            thetas: (rows, 2, 3) of the faces in both.
        """
        self.critic.requires_grad_(True)
        both = torch.cat([drawn.detach().float(), photos.float()])
        marks = self.critic(both, torch.cat([thetas, thetas]))
        rows = len(drawn)
        mistaken = torch.stack(
            [
                functional.relu(1.0 + mark[:rows]).mean()
                + functional.relu(1.0 - mark[rows:]).mean()
                for mark in marks
            ]
        ).mean()
        mistaken.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.critic.requires_grad_(False)
        wish = -torch.stack([mark.mean() for mark in self.critic(drawn, thetas)]).mean()
        return min(1.0, self.steps / WARM_UP_STEPS) * wish
