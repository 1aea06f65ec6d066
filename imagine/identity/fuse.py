"""Several selfies become one `Identity`, or a sentence about each that says why not.

The story of a photo: decode, detect, choose the face, judge, cut out, embed. Then the photos are
compared with each other. Nothing is dropped silently: either every photo given is part of the
identity, or an error names those that cannot be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imagine.core import FloatArray, Identity, ImageArray, PhotoReport, PhotoVerdict
from imagine.errors import (
    DifferentPeople,
    InvalidInput,
    NoFaceFound,
    PoorPhoto,
    SeveralFaces,
    UnreadablePhoto,
)
from imagine.identity import quality
from imagine.identity.align import align_face, mask_background
from imagine.identity.base import FaceDetector, FaceEncoder
from imagine.identity.photos import PhotoSource, decode_photo, photo_name
from imagine.settings import Settings

_ERROR_BY_CODE: dict[str, type[InvalidInput]] = {
    "unreadable": UnreadablePhoto,
    "no_face": NoFaceFound,
    "several_faces": SeveralFaces,
    "no_such_face": InvalidInput,
}


@dataclass(frozen=True, slots=True)
class _Examined:
    """One photo after it was looked at; crop and embedding only if it is usable."""

    report: PhotoReport
    digest: str = ""
    crop: ImageArray | None = None
    embedding: FloatArray | None = None


def build_identity(
    photos: Sequence[PhotoSource],
    detector: FaceDetector,
    encoder: FaceEncoder,
    settings: Settings,
    choose: Mapping[int, int] | None = None,
) -> Identity:
    """Turn one to five selfies of one person into an `Identity`.

    Args:
        photos: paths, file bytes, Pillow images or RGB arrays; their order is kept.
        detector: finds the faces.
        encoder: makes the embeddings by which the photos are compared.
        settings: limits.
        choose: photo index -> face index (0 is left), for photos that show several faces.

    Returns:
        The identity, with one crop, one embedding and one report per photo.

    Raises:
        InvalidInput: no photo, too many, or `choose` names a photo or face that is not there.
        UnreadablePhoto, NoFaceFound, SeveralFaces, PoorPhoto: a photo is refused; the class is
            that of the first, the message names every refused photo and why.
        DifferentPeople: the photos do not show one person; the odd one out is named.
    """
    _check_count(photos, settings)
    _check_choose(choose, len(photos))
    examined = list(_examine_all(photos, detector, encoder, settings, choose))
    _raise_refused(examined)
    return _one_person(examined, encoder, [e.report for e in examined])


def identity_of_crops(
    crops: ImageArray,
    detector: FaceDetector,
    encoder: FaceEncoder,
    settings: Settings,
    reports: Sequence[PhotoReport] = (),
) -> Identity:
    """Measure aligned crops that came from elsewhere, believing nothing but their pixels.

    The face is looked for in each crop. Its embedding lies within 0.2 of that of the whole photo
    (dlib, 12 photos of the sample people), where one person stays within 0.6.

    Args:
        crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8, aligned by `identity.align`.
        detector: finds the faces.
        encoder: makes the embeddings.
        settings: limits.
        reports: what was said of the photos they were cut from; taken along.

    Raises:
        InvalidInput: none, or more than a person may have photos.
        NoFaceFound, SeveralFaces: a crop does not show exactly one face.
        DifferentPeople: the crops do not show one person.
    """
    _check_count(list(crops), settings)
    examined = []
    for number, crop in enumerate(crops, start=1):
        name, faces = f"Face {number}", detector.detect(crop)
        if len(faces) != 1:
            kind = SeveralFaces if faces else NoFaceFound
            raise kind(
                f"{name} of {len(crops)} shows {len(faces)} faces where there should be one. "
                "Enrol the person from photos instead."
            )
        report = quality.report(name, [], {}, 1)
        examined.append(_Examined(report, crop=crop, embedding=encoder.embed(crop, faces[0])))
    return _one_person(examined, encoder, reports)


def _one_person(
    examined: Sequence[_Examined], encoder: FaceEncoder, reports: Sequence[PhotoReport]
) -> Identity:
    """Fuse accepted faces, unless they are not all of one person."""
    odd = _odd_ones(examined, encoder)
    if odd:
        raise DifferentPeople(" ".join(dict.fromkeys(odd.values())))
    crops = np.stack([e.crop for e in examined if e.crop is not None])
    embeddings = np.stack([e.embedding for e in examined if e.embedding is not None])
    return Identity(
        crops=crops,
        embeddings=embeddings,
        embedding=fuse_embeddings(embeddings),
        recogniser=encoder.name,
        reports=tuple(reports),
        fingerprint=fingerprint(crops),
    )


def check_photos(
    photos: Sequence[PhotoSource],
    detector: FaceDetector,
    encoder: FaceEncoder,
    settings: Settings,
    choose: Mapping[int, int] | None = None,
) -> tuple[PhotoReport, ...]:
    """Say what we think of each photo; a bad photo is reported, never raised.

    Arguments are those of `build_identity`. A photo of somebody else than the rest is refused with
    the code "different_person".

    Returns:
        One report per photo, in order.

    Raises:
        InvalidInput: no photo at all, or `choose` names a photo that is not there.
    """
    if not photos:
        raise InvalidInput("No photo was given. Give one to five selfies of one person.")
    _check_choose(choose, len(photos))
    examined = list(_examine_all(photos, detector, encoder, settings, choose))
    odd = _odd_ones(examined, encoder)
    return tuple(
        _with_finding(e.report, "different_person", odd[index]) if index in odd else e.report
        for index, e in enumerate(examined)
    )


def fuse_embeddings(embeddings: FloatArray) -> FloatArray:
    """The geometric median of a person's embeddings, which one bad photo hardly moves.

    A median of vectors of one length lies inside their sphere, and the distance to it would come
    out too small or too large for the encoder's threshold; it is therefore stretched back to the
    mean length of the vectors: 1 for encoders of unit vectors, about 1.47 for dlib.

    Args:
        embeddings: (photos, d) float32, at least one row.

    Returns:
        (d,) float32.

    Source: Weiszfeld's iteration, in the form of Vardi and Zhang 2000 (PNAS 97(4)) without their
    case for a point of the data, which the small floor on the distances stands in for.
    """
    points = embeddings.astype(np.float64)
    median = points.mean(axis=0)
    for _ in range(64):
        weights = 1.0 / np.maximum(np.linalg.norm(points - median, axis=1), 1e-6)
        nearer = (weights[:, None] * points).sum(axis=0) / weights.sum()
        moved = float(np.linalg.norm(nearer - median))
        median = nearer
        if moved < 1e-7:
            break
    length = float(np.linalg.norm(points, axis=1).mean())
    median *= length / max(float(np.linalg.norm(median)), 1e-12)
    fused: FloatArray = median.astype(np.float32)
    return fused


def fingerprint(crops: ImageArray) -> str:
    """SHA-256 of the crops, hexadecimal: equal for equal selfies in equal order."""
    digest = hashlib.sha256(repr(crops.shape).encode())
    digest.update(np.ascontiguousarray(crops).tobytes())
    return digest.hexdigest()


def wipe(identity: Identity) -> None:
    """Overwrite everything that describes the person with zeros; the identity is useless after.

    Copies that others made (tokens in a model, arrays they sliced and kept) are theirs to forget.
    """
    for array in (identity.crops, identity.embeddings, identity.embedding):
        if not array.flags.writeable:
            array.flags.writeable = True
        array.fill(0)


def _check_count(photos: Sequence[PhotoSource], settings: Settings) -> None:
    if not photos:
        raise InvalidInput("No photo was given. Give one to five selfies of one person.")
    if len(photos) > settings.max_photos:
        raise InvalidInput(
            f"{len(photos)} photos were given; at most {settings.max_photos} are used. "
            "Choose the sharpest, with different expressions and light."
        )


def _check_choose(choose: Mapping[int, int] | None, count: int) -> None:
    strays = [index for index in choose or {} if not 0 <= index < count]
    if strays:
        raise InvalidInput(
            f"A face was chosen in photo {strays[0]}, but there are photos 0 to {count - 1}."
        )


def _examine_all(
    photos: Sequence[PhotoSource],
    detector: FaceDetector,
    encoder: FaceEncoder,
    settings: Settings,
    choose: Mapping[int, int] | None,
) -> Iterator[_Examined]:
    """Look at each photo in turn; the pixels of one are let go before the next is opened."""
    first_seen: dict[str, str] = {}
    for index, (photo, name) in enumerate(zip(photos, _names(photos), strict=True)):
        chosen = (choose or {}).get(index)
        examined = _examine(photo, name, detector, encoder, settings, chosen)
        twin = first_seen.setdefault(examined.digest, name) if examined.digest else name
        if twin != name:
            sentence = f"The very same photo as {twin}; a different one would teach more."
            report = _with_finding(examined.report, "duplicate", sentence, refuse=False)
            examined = replace(examined, report=report)
        yield examined


def _names(photos: Sequence[PhotoSource]) -> list[str]:
    """File names, made unlike each other where two folders hold the same one."""
    names = [photo_name(photo, index) for index, photo in enumerate(photos)]
    return [
        name if names.count(name) == 1 else f"{name} (photo {index + 1})"
        for index, name in enumerate(names)
    ]


def _examine(
    photo: PhotoSource,
    name: str,
    detector: FaceDetector,
    encoder: FaceEncoder,
    settings: Settings,
    chosen: int | None,
) -> _Examined:
    try:
        image = decode_photo(photo, name, settings)
    except UnreadablePhoto as error:
        finding = quality.Finding("unreadable", PhotoVerdict.REFUSE, str(error))
        return _Examined(quality.report(name, [finding], {}, 0))
    faces = detector.detect(image)
    choice = quality.choose_face(faces, chosen)
    if choice.face is None:
        return _Examined(quality.report(name, choice.findings, {}, len(faces)))
    findings, measures = quality.assess(image, choice.face)
    report = quality.report(name, [*findings, *choice.findings], measures, len(faces))
    if report.verdict is PhotoVerdict.REFUSE:
        return _Examined(report)
    return _Examined(
        report=report,
        digest=fingerprint(image),
        crop=mask_background(align_face(image, choice.face.landmarks)),
        embedding=encoder.embed(image, choice.face),
    )


def _with_finding(
    report: PhotoReport, code: str, sentence: str, refuse: bool = True
) -> PhotoReport:
    """Add one finding: a refusal in front, advice at the end."""
    said = report.sentences if report.codes else ()
    if refuse:
        sentences, codes = (sentence, *said), (code, *report.codes)
        return replace(report, verdict=PhotoVerdict.REFUSE, sentences=sentences, codes=codes)
    verdict = max(report.verdict, PhotoVerdict.KEEP_WITH_ADVICE, key=list(PhotoVerdict).index)
    return replace(
        report, verdict=verdict, sentences=(*said, sentence), codes=(*report.codes, code)
    )


def _raise_refused(examined: Sequence[_Examined]) -> None:
    refused = [e.report for e in examined if e.report.verdict is PhotoVerdict.REFUSE]
    if not refused:
        return
    kind = _ERROR_BY_CODE.get(refused[0].codes[0], PoorPhoto)
    raise kind(" ".join(_named(report) for report in refused))


def _named(report: PhotoReport) -> str:
    sentence = report.sentences[0]
    return sentence if report.name in sentence else f"{report.name}: {sentence}"


def _odd_ones(examined: Sequence[_Examined], encoder: FaceEncoder) -> dict[int, str]:
    """Photos that show somebody else: their index and a sentence about each.

    The person is whoever most photos agree on: the photo with the most others within the
    encoder's threshold, and those others. Without a majority nobody can say who is odd, and every
    photo is named.
    """
    usable = [index for index, e in enumerate(examined) if e.embedding is not None]
    if len(usable) < 2:
        return {}
    distances = _pairwise([e.embedding for e in examined if e.embedding is not None], encoder)
    near = distances <= encoder.same_person_distance
    # Most agreement first, then the smallest distances: the same answer whatever the order.
    centre = min(range(len(usable)), key=lambda row: (-near[row].sum(), distances[row].sum()))
    names = [examined[index].report.name for index in usable]
    if 2 * near[centre].sum() <= len(usable):
        everybody = f"{', '.join(names[:-1])} and {names[-1]}"
        sentence = f"{everybody} do not seem to show one person. Give photos of one person."
        return dict.fromkeys(usable, sentence)
    return {
        usable[row]: (
            f"{names[row]} seems to show somebody else than {names[centre]} "
            f"(distance {distances[row, centre]:.2f}, one person stays within "
            f"{encoder.same_person_distance:.2f}). Leave it out."
        )
        for row in range(len(usable))
        if not near[centre, row]
    }


def _pairwise(embeddings: Sequence[FloatArray], encoder: FaceEncoder) -> NDArray[np.float64]:
    return np.array([[encoder.distance(a, b) for b in embeddings] for a in embeddings])
