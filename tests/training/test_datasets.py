import numpy as np
import torch
from PIL import Image

from imagine.identity.align import align_face
from training.datasets import face_theta
from training.recogniser import align_batch


def test_the_differentiable_alignment_cuts_the_same_face_as_the_plain_one():
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC))
    landmarks = np.array([[48, 55], [78, 60], [60, 78], [50, 95], [72, 96]], np.float32)
    plain = align_face(image, landmarks, 64).astype(np.float32)
    theta = torch.from_numpy(face_theta(landmarks, 128))[None]
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float()[None]
    sampled = align_batch(pixels, theta, 64)[0].permute(1, 2, 0).numpy()
    inside = np.abs(plain - sampled)[8:-8, 8:-8]
    assert inside.mean() < 4.0  # of 255: bicubic against bilinear on a smooth picture
