"""Selfies in, one `Identity` out."""

from imagine.identity.base import FaceDetector, FaceEncoder
from imagine.identity.fuse import build_identity, check_photos, identity_of_crops, wipe
from imagine.identity.photos import PhotoSource, decode_photo
from imagine.registry import Registry

FACE_DETECTORS = Registry[FaceDetector]("face detector")
FACE_DETECTORS.add("dlib", "imagine.identity.dlib_faces:DlibDetector")
FACE_DETECTORS.add("insightface", "imagine.identity.insightface_faces:InsightFaceDetector")

FACE_ENCODERS = Registry[FaceEncoder]("face encoder")
FACE_ENCODERS.add("dlib", "imagine.identity.dlib_faces:DlibEncoder")
FACE_ENCODERS.add("insightface", "imagine.identity.insightface_faces:InsightFaceEncoder")

__all__ = [
    "FACE_DETECTORS",
    "FACE_ENCODERS",
    "FaceDetector",
    "FaceEncoder",
    "PhotoSource",
    "build_identity",
    "check_photos",
    "decode_photo",
    "identity_of_crops",
    "wipe",
]
