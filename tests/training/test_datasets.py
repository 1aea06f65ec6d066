import numpy as np
import torch
from PIL import Image

from imagine.identity.align import align_face
from imagine.models.face_recogniser import aligned
from tests.training.tiny_photos import NoWords, numbered_record
from training.datasets import PairedPhotos, face_theta, to_unit_range
from training.people.cache import write_shard
from training.people.switched import AGED


def test_the_differentiable_alignment_cuts_the_same_face_as_the_plain_one():
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC))
    landmarks = np.array([[48, 55], [78, 60], [60, 78], [50, 95], [72, 96]], np.float32)
    plain = align_face(image, landmarks, 64).astype(np.float32)
    theta = torch.from_numpy(face_theta(landmarks, 128))[None]
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float()[None]
    sampled = aligned(pixels, theta, 64)[0].permute(1, 2, 0).numpy()
    inside = np.abs(plain - sampled)[8:-8, 8:-8]
    assert inside.mean() < 4.0  # of 255: bicubic against bilinear on a smooth picture


def test_whoever_is_older_is_drawn_but_nobody_is_recognised_by_it(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    kinds = ["selfie", "selfie", AGED] * 2
    records = [numbered_record(n, 3, kind, scale=0.25) for n, kind in enumerate(kinds)]
    write_shard(tmp_path, "shard-0000000", images, records)
    photos = PairedPhotos(tmp_path, NoWords(), "cpu", 0)
    batch = photos.sample(60, same_photo=1.0, high_quality=False)
    drawn = {record.kind for record in batch.records}
    assert drawn == {"selfie", AGED}
    older = to_unit_range(images[[2, 5]])
    older_crops = to_unit_range(photos._crops[0][[2, 5]])
    assert not any(torch.equal(one, crop) for one in older_crops for crop in batch.crops)
    seen, _, _ = photos.sample_faces(60)
    assert not any(torch.equal(one, image) for one in older for image in seen)
    assert [len(faces) for faces, _ in photos.faces_of_everyone()] == [2, 2]
