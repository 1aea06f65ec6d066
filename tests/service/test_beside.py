"""Two people in one picture: each agrees for themselves, and each takes it along when they go."""

from __future__ import annotations

from tests.service.conftest import House


def test_a_picture_of_two_people_says_how_much_it_looks_like_each(house: House) -> None:
    ada, bob = house.enrol(0), house.enrol(1)
    told = house.generate(ada, beside=bob)["images"][0]
    assert set(told["pair"]) == {"left", "right", "blending"}
    recipe = house.ask("GET", told["urls"]["recipe"]).json()
    assert (
        recipe["beside_fingerprint"]
        and recipe["beside_fingerprint"] != (recipe["identity_fingerprint"])
    )


def test_whoever_stood_beside_takes_the_pictures_along_when_erased(house: House) -> None:
    ada, bob = house.enrol(0), house.enrol(1)
    both = house.generate(ada, beside=bob)
    alone = house.generate(ada)
    erased = house.ask("DELETE", f"/v1/identities/{bob}").json()
    assert erased["certificate"]["certificate"]["counts"]["beside"] == 1
    assert house.ask("GET", both["images"][0]["urls"]["self"]).status_code == 404
    assert house.ask("GET", both["urls"]["self"]).status_code == 404
    assert house.ask("GET", alone["images"][0]["urls"]["content"]).status_code == 200


def test_a_withdrawal_stops_what_is_drawn_with_them_beside(house: House, slowly: None) -> None:
    ada, bob = house.enrol(0), house.enrol(1)
    wish = {"prompt": "a", "identity": ada, "beside": bob, "num_inference_steps": 200}
    begun = house.ask("POST", "/v1/generations", json=wish).json()
    told = house.ask("POST", f"/v1/identities/{bob}/withdraw").json()
    assert told["generations_canceled"] == 1
    body = house.ask("GET", f"{begun['urls']['self']}/events").text
    assert "event: canceled" in body and "event: succeeded" not in body
