"""Give an exported model the networks by which it chooses among its own drawings.

    python -m training.choosing runs/export --recogniser runs/recogniser-choosing \
        --attributes runs/attribute-teacher

The recogniser must not have rewarded the model (`training.rewards`): what it has been pleased by,
it cannot rank. It has a locator with it (`training.recogniser --locator`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from imagine.backends.embedded import save_chooser
from imagine.backends.prompt_judge import load_attribute_network
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.face_recogniser import FaceLocator
from training.recogniser import load_recogniser


def add_chooser(model: Path, recogniser: Path, attributes: Path) -> None:
    """Write recogniser, locator and attribute network into the model's folder, in half precision.

    Raises:
        MissingWeights: there is no attribute network.
        OSError: there is no recogniser, or none with a locator.
    """
    locator = FaceLocator.from_pretrained(recogniser / "locator", **OWN_MODELS)
    save_chooser(
        model, load_recogniser(recogniser, "cpu"), locator, load_attribute_network(attributes)
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="exported model")
    parser.add_argument("--recogniser", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    given = parser.parse_args()
    add_chooser(given.model, given.recogniser, given.attributes)
    print(f"{given.model} chooses among its drawings now")


if __name__ == "__main__":
    main()
