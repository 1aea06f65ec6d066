from __future__ import annotations

import json

import pytest

from imagine.backends import BACKENDS
from imagine.backends.licences import (
    CHAINS,
    FACE_PACKS,
    LicenceMode,
    Terms,
    check_licences,
    licence_chain,
)
from imagine.errors import LicenceRefused, UnknownName

FREE = ["embedded", "fake", "flux2_klein"]
RESTRICTED = ["sd15_faceid", "sdxl_faceid"]


def klein_folder(tmp_path, width):
    (tmp_path / "transformer").mkdir(parents=True)
    config = {} if width is None else {"joint_attention_dim": width}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_every_registered_backend_has_its_licences_recorded():
    assert set(BACKENDS.names()) <= set(CHAINS)


def test_every_fact_names_its_source_and_every_chain_begins_with_a_base():
    for chain in CHAINS.values():
        assert chain[0].role == "base"
        assert all(part.licence and part.source for part in chain)


@pytest.mark.parametrize("backend", FREE)
def test_permissive_mode_allows_free_chains(backend):
    stamp = check_licences(backend, "permissive", face_packs=["dlib"])
    assert not stamp.restricted
    assert stamp.in_words() == "permissive: all weights allow commercial use"


@pytest.mark.parametrize("backend", RESTRICTED)
def test_permissive_mode_refuses_with_the_whole_chain_and_a_way_out(backend):
    with pytest.raises(LicenceRefused) as refused:
        check_licences(backend, "permissive")
    words = str(refused.value)
    for part in CHAINS[backend]:
        assert part.in_words() in words
    assert {part.role for part in CHAINS[backend]} == {"base", "adapter", "face pack"}
    assert "embedded, flux2_klein" in words and "--licence research" in words


@pytest.mark.parametrize("backend", RESTRICTED)
def test_research_mode_allows_them_and_stamps_why_not_to_sell(backend):
    stamp = check_licences(backend, LicenceMode.RESEARCH)
    assert [part.role for part in stamp.restricted] == ["adapter", "face pack"]
    assert stamp.in_words().startswith("research: not for commercial use because of adapter")
    assert "buffalo_l" in stamp.in_words()


def test_a_judging_face_pack_counts_too():
    with pytest.raises(LicenceRefused, match=r"buffalo_l \(non-commercial\)"):
        check_licences("embedded", "permissive", face_packs=["buffalo_l"])


@pytest.mark.parametrize(
    ("pack", "terms"),
    [
        ("dlib", Terms.PERMISSIVE),
        ("AuraFace-v1", Terms.PERMISSIVE),
        ("antelopev2", Terms.NON_COMMERCIAL),
        ("my-pack", Terms.NON_COMMERCIAL),
    ],
)
def test_packs_nobody_knows_count_as_non_commercial(pack, terms):
    assert licence_chain("embedded", face_packs=[pack])[-1].terms is terms


def test_a_pack_that_conditions_and_judges_is_named_once():
    chain = licence_chain("sdxl_faceid", face_packs=["buffalo_l", "buffalo_l"])
    assert [part.name for part in chain].count("buffalo_l") == 1


@pytest.mark.parametrize(
    ("width", "name"), [(12288, "FLUX.2 klein 9B"), (48, "weights in"), (None, "weights in")]
)
def test_a_folder_with_another_klein_is_found_out_before_loading(tmp_path, width, name):
    folder = klein_folder(tmp_path / "klein", width)
    with pytest.raises(LicenceRefused, match=name):
        check_licences("flux2_klein", "permissive", weights=folder)
    assert check_licences("flux2_klein", "research", weights=folder).restricted


def test_a_folder_with_the_4b_klein_is_free(tmp_path):
    folder = klein_folder(tmp_path / "klein", 7680)
    assert not check_licences("flux2_klein", "permissive", weights=folder).restricted


def test_the_insightface_packs_of_the_identity_room_are_all_known():
    from imagine.identity.insightface_faces import PACK_LICENCES

    assert set(PACK_LICENCES) <= set(FACE_PACKS)


def test_unknown_modes_and_backends_are_refused_with_the_known_ones():
    with pytest.raises(UnknownName, match="permissive, research"):
        check_licences("embedded", "commercial")
    with pytest.raises(UnknownName, match="Known: embedded"):
        licence_chain("somebodys")
