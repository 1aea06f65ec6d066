"""A reviewer for tests: a key of a house, asking."""

from __future__ import annotations

from typing import Any

from tests.service.conftest import House

WHY = {"reason": "legal_request", "clause": "9.2"}


class Reviewer:
    """Somebody with the review role at a house."""

    def __init__(self, house: House, role: str = "reviewer") -> None:
        self._house = house
        self._headers = {"Authorization": f"Bearer {house.key(role)}"}

    def ask(self, method: str, path: str, **words: Any) -> Any:
        return self._house.http.request(method, path, headers=self._headers, **words)

    def reviews(self, queue: str, **more: Any) -> list[dict[str, Any]]:
        found = self.ask("GET", "/v1/reviews", params={"queue": queue, "limit": 100, **more})
        assert found.status_code == 200, found.text
        data: list[dict[str, Any]] = found.json()["data"]
        return data

    def decide(self, review: str, ruling: str, **more: Any) -> Any:
        words = {"ruling": ruling, "reason": "within_policy", "clause": "9.1", **more}
        return self.ask("POST", f"/v1/reviews/{review}/decisions", json=words)


def two(house: House) -> tuple[Reviewer, Reviewer]:
    """Two reviewers of the same house."""
    return Reviewer(house), Reviewer(house)
