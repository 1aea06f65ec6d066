from __future__ import annotations

from datetime import timedelta

from imagine.service.review_figures import review_figures
from imagine.storage.acts import Reason
from imagine.storage.database import utc_now
from imagine.storage.reviews import NewReview, Queue, Ruling
from tests.service.conftest import House


def test_what_came_was_decided_and_was_stopped_is_counted(house: House) -> None:
    service, tenant = house.service, house.tenant_id
    person = house.enrol()
    made = house.generate(person)
    image = made["images"][0]["id"]
    before = review_figures(service.database, tenant)
    review = service.reviews.add(NewReview(tenant, Queue.REPORT, "sampled", image_id=image))
    blocked = {"prompt": "naked on a beach", "identity": person}
    assert house.ask("POST", "/v1/generations", json=blocked).status_code == 403
    decide = service.reviews.decide
    decide(tenant, review.id, Ruling.LEAVE, Reason.WITHIN_POLICY, "9.1", "key_r")
    after = review_figures(service.database, tenant)
    assert sum(after.queued[Queue.REPORT]) == sum(before.queued[Queue.REPORT]) + 1
    assert after.days[-1] == utc_now().date() and len(after.days) == 30
    assert after.rulings["leave"] == 1 and after.minutes[Queue.REPORT] < 5
    assert sum(after.refused_prompts.values()) == 1 and after.asked == before.asked + 1
    assert after.late == 0


def test_figures_are_of_one_tenant_and_of_the_last_days(house: House) -> None:
    later = review_figures(
        house.service.database, house.tenant_id, clock=lambda: utc_now() + timedelta(days=60)
    )
    assert later.asked == 0 and later.decided == 0 and later.held_back == {}
