"""Every error we raise on purpose.

ImagineError
├── InvalidInput            the caller can mend it: wrong argument, wrong file
│   ├── UnknownName         no such backend, encoder, style
│   ├── UnreadablePhoto     a file that is not a photo we can decode safely
│   ├── NoFaceFound         a selfie shows no usable face
│   ├── SeveralFaces        a selfie shows several faces and none was chosen
│   ├── PoorPhoto           the face is there, but too small, blurred, turned or cut
│   └── DifferentPeople     the selfies are not of one person
├── PromptBlocked           the wish is not one we fulfil
├── Cancelled               the caller asked us to stop
├── MissingExtra            an optional package is not installed
├── MissingWeights          weights are not on this machine
├── CorruptWeights          weights are here but cannot be used
└── OutputNotWritten        the disk refused the picture; nothing half-written is left

Every message says what happened, with which value, and what to do next.
Each class carries the exit status of the command line (`exit_code`).
"""

from __future__ import annotations


class ImagineError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code = 1


class InvalidInput(ImagineError):
    """An argument or file the caller can correct."""

    exit_code = 2


class UnknownName(InvalidInput):
    """A name that no registry knows."""


class UnreadablePhoto(InvalidInput):
    """A file that is not a photo we can decode safely."""


class NoFaceFound(InvalidInput):
    """A selfie without a face that could be used."""

    exit_code = 3


class SeveralFaces(InvalidInput):
    """A selfie with several faces and nobody said which."""

    exit_code = 3


class PoorPhoto(InvalidInput):
    """A selfie whose face is too small, blurred, dark, turned or cut off."""

    exit_code = 3


class DifferentPeople(InvalidInput):
    """Selfies that do not show one person."""

    exit_code = 3


class PromptBlocked(ImagineError):
    """A wish that policy does not allow."""

    exit_code = 4


class Cancelled(ImagineError):
    """The caller asked to stop before the picture was finished."""

    exit_code = 130


class MissingExtra(ImagineError):
    """An optional package is not installed; the message has the pip command."""

    exit_code = 5


class MissingWeights(ImagineError):
    """Weights are not on this machine; the message has the command that gets them."""

    exit_code = 5


class CorruptWeights(ImagineError):
    """Weights exist but cannot be loaded."""

    exit_code = 5


class OutputNotWritten(ImagineError):
    """A result could not be written; no partial file is left behind."""

    exit_code = 6
