from __future__ import annotations

from imagine.service.usage import Usage
from imagine.storage.jobs import JobState
from tests.service.conftest import House


def test_usage_counts_the_days_of_a_tenant(house: House) -> None:
    house.generate(house.enrol())
    days = Usage(house.service.database).by_day(house.tenant_id, 7)
    assert len(days) == 7 and days[-1].states == {JobState.SUCCEEDED: 1}
    assert sum(day.total for day in days) == 1
    assert Usage(house.service.database).by_day("nobody")[0].total == 0
