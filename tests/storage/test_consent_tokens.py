import pytest

from imagine.errors import ConsentTokenInvalid, ConsentTokenUsed
from imagine.storage.consent_tokens import LIFETIME, ConsentTokens
from tests.storage.house import TENANT, TEXT, House


@pytest.fixture
def tokens(house: House) -> ConsentTokens:
    return ConsentTokens(house.database, house.clock)


def test_a_token_is_good_once(tokens: ConsentTokens) -> None:
    issued = tokens.issue(TENANT, TEXT)
    tokens.use(TENANT, issued.token, TEXT)
    with pytest.raises(ConsentTokenUsed, match="used on 2027-01-04"):
        tokens.use(TENANT, issued.token, TEXT)
    assert issued.token not in repr(issued)


def test_a_consent_that_was_not_recorded_gives_its_token_back(tokens: ConsentTokens) -> None:
    token = tokens.issue(TENANT, TEXT).token
    give_back = tokens.use(TENANT, token, TEXT)
    give_back()
    tokens.use(TENANT, token, TEXT)


def test_a_token_is_for_its_text_its_tenant_and_its_hour(
    house: House, tokens: ConsentTokens
) -> None:
    house.people.add_tenant("other", "Another")
    token = tokens.issue(TENANT, TEXT).token
    for tenant, given, text in (
        (TENANT, token, TEXT + " "),
        ("other", token, TEXT),
        (TENANT, token[:-1] + ("A" if token[-1] != "A" else "B"), TEXT),
        (TENANT, "ict_00", TEXT),
        (TENANT, "", TEXT),
    ):
        with pytest.raises(ConsentTokenInvalid) as refused:
            tokens.use(tenant, given, text)
        assert not isinstance(refused.value, ConsentTokenUsed)
    house.clock.now += LIFETIME
    with pytest.raises(ConsentTokenInvalid, match="expired"):
        tokens.use(TENANT, token, TEXT)


def test_a_used_token_is_told_apart_for_a_week(house: House, tokens: ConsentTokens) -> None:
    token = tokens.issue(TENANT, TEXT).token
    tokens.use(TENANT, token, TEXT)
    house.clock.pass_(days=6)
    tokens.issue(TENANT, TEXT)
    with pytest.raises(ConsentTokenUsed):
        tokens.use(TENANT, token, TEXT)
    house.clock.pass_(days=2)
    tokens.issue(TENANT, TEXT)
    with pytest.raises(ConsentTokenInvalid, match="not issued"):
        tokens.use(TENANT, token, TEXT)
