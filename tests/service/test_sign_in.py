from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey

from imagine.errors import InvalidInput, ServiceUnreachable, SignInRefused
from imagine.service.auth import CSRF_HEADER, SESSION_COOKIE, Doorkeeper, csrf_token, scopes_of
from imagine.service.settings import OidcSettings, ServiceSettings
from imagine.service.sign_in import SignIn, local_path
from imagine.service.wiring import Service
from tests.service.conftest import House, chosen
from tests.service.issuer import CLIENT, ISSUER, Issuer

SETTINGS = OidcSettings(issuer=ISSUER, client_id=CLIENT, public_url="https://pictures.example")


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "k1"})


@pytest.fixture
def issuer(key: RSAKey) -> Issuer:
    return Issuer(key)


def door(issuer: Issuer, settings: OidcSettings = SETTINGS, **more: Any) -> SignIn:
    return SignIn(settings, b"k" * 32, lambda tenant_id, name: None, issuer.http, **more)


def test_a_token_of_the_issuer_is_somebody_with_a_role(issuer: Issuer) -> None:
    sign_in = door(issuer)
    ada, again = sign_in.caller(issuer.token()), sign_in.caller(issuer.token(roles="developer"))
    assert ada == again and ada.scopes == scopes_of("developer")
    assert ada.actor.startswith("user_") and ada.tenant_id.startswith("own_")
    assert "ada" not in ada.actor + ada.tenant_id
    bob = sign_in.caller(issuer.token(sub="bob"))
    assert bob.tenant_id != ada.tenant_id
    assert issuer.asked.count("/keys") == 1  # kept between tokens


def test_several_roles_add_up_and_unknown_ones_say_nothing(issuer: Issuer) -> None:
    caller = door(issuer).caller(issuer.token(roles=["user", "reviewer", "king"]))
    assert caller.scopes == scopes_of("user") | scopes_of("reviewer")


def test_the_words_of_an_issuer_can_be_given_a_meaning(issuer: Issuer) -> None:
    settings = OidcSettings(
        ISSUER, CLIENT, roles_claim="realm.roles", roles=(("chief", "admin"),), tenant_claim="org"
    )
    sign_in = door(issuer, settings)
    told = {"roles": None, "realm": {"roles": ["chief"]}, "org": "Studio & Co"}
    ada = sign_in.caller(issuer.token(**told))
    assert ada.scopes == scopes_of("admin") and ada.tenant_id.startswith("org_")
    assert sign_in.caller(issuer.token(sub="bob", **told)).tenant_id == ada.tenant_id
    with pytest.raises(SignInRefused, match="'org'"):
        sign_in.caller(issuer.token(**{**told, "org": None}))


@pytest.mark.parametrize("roles", [None, [], ["king"], 7, {"admin": True}])
def test_somebody_without_a_role_is_known_and_may_nothing(issuer: Issuer, roles: Any) -> None:
    with pytest.raises(SignInRefused, match="no role") as refused:
        door(issuer).caller(issuer.token(roles=roles))
    assert refused.value.lacks_scope


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"nbf": int(time.time()) + 3600},
        {"iat": None},
        {"sub": None},
    ],
)
def test_a_token_for_another_place_or_time_is_refused(
    issuer: Issuer, changes: dict[str, Any]
) -> None:
    with pytest.raises(SignInRefused) as refused:
        door(issuer).caller(issuer.token(**changes))
    assert not refused.value.lacks_scope


def test_a_token_that_the_issuer_did_not_sign_is_refused(issuer: Issuer) -> None:
    sign_in = door(issuer)
    forged = Issuer(RSAKey.generate_key(2048, {"kid": "k1"})).token()
    tampered = issuer.token()[:-6] + "AAAAAA"
    for token in (forged, tampered, issuer.unsigned(), "a.b.c", "x", "é", "a" * 20_000):
        with pytest.raises(SignInRefused):
            sign_in.caller(token)


def test_new_keys_of_the_issuer_are_found_and_nonsense_does_not_make_us_ask(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in = door(issuer)
    sign_in.caller(issuer.token())
    issuer.key = RSAKey.generate_key(2048, {"kid": "k2"})
    with pytest.raises(SignInRefused):  # asked a moment ago
        sign_in.caller(issuer.token())
    assert issuer.asked.count("/keys") == 1
    monkeypatch.setattr("imagine.service.sign_in._KEYS_PAUSE_SECONDS", -1.0)
    assert sign_in.caller(issuer.token()).scopes == scopes_of("developer")


def test_an_access_token_is_meant_for_its_audience(issuer: Issuer) -> None:
    settings = OidcSettings(ISSUER, CLIENT, audience="https://pictures.example/api")
    caller = door(issuer, settings).caller(
        issuer.token(aud="https://pictures.example/api", azp="a-program")
    )
    assert caller.scopes == scopes_of("developer")


def test_an_issuer_that_is_away_or_another_one_is_named(issuer: Issuer) -> None:
    issuer.is_away = True
    with pytest.raises(ServiceUnreachable, match=r"login\.example"):
        door(issuer).caller(issuer.token())
    issuer.is_away = False
    for metadata in ({"issuer": "https://other.example"}, {"jwks_uri": "http://a.example/keys"}):
        issuer.metadata = metadata
        with pytest.raises(ServiceUnreachable):
            door(issuer).caller(issuer.token())


def test_a_login_comes_back_with_its_cookie_state_and_verifier(issuer: Issuer) -> None:
    sign_in = door(issuer)
    departure = sign_in.leave("/me?tab=2", "http://inside")
    assert "code_challenge_method=S256" in departure.url
    assert "redirect_uri=https%3A%2F%2Fpictures.example%2Fauth%2Fcallback" in departure.url
    query = dict(part.split("=") for part in issuer.log_in(departure.url).split("&"))
    arrival = sign_in.arrive(departure.cookie, query["state"], query["code"], "", ISSUER)
    assert arrival.next_path == "/me?tab=2"
    assert arrival.caller == sign_in.caller(issuer.token())
    with pytest.raises(SignInRefused, match="did not accept"):  # a code is good once
        sign_in.arrive(departure.cookie, query["state"], query["code"], "")


def test_a_login_that_was_not_begun_here_is_refused(issuer: Issuer) -> None:
    late = [0.0]
    sign_in = door(issuer, clock=lambda: time.time() + late[0])
    mine, other = sign_in.leave("/", ""), sign_in.leave("/", "")
    query = dict(part.split("=") for part in issuer.log_in(mine.url).split("&"))
    code, state = query["code"], query["state"]
    for cookie, said, who in (
        (None, state, None),
        ("nonsense", state, None),
        (other.cookie, state, None),
        (mine.cookie, "other", None),
        (mine.cookie, state, "https://evil.example"),
    ):
        with pytest.raises(SignInRefused):
            sign_in.arrive(cookie, said, code, "", who)
    late[0] = 601.0
    with pytest.raises(SignInRefused, match="too long"):
        sign_in.arrive(mine.cookie, state, code, "")


def test_a_token_of_another_login_is_refused(issuer: Issuer) -> None:
    sign_in = door(issuer)
    departure = sign_in.leave("/", "")
    query = dict(part.split("=") for part in issuer.log_in(departure.url).split("&"))
    issuer.codes[query["code"]]["nonce"] = "of another login"
    with pytest.raises(SignInRefused):
        sign_in.arrive(departure.cookie, query["state"], query["code"], "")


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil", "", "a", "/" + "a" * 500, "/\n"]
)
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert local_path(path) == "/"


@pytest.mark.parametrize(
    "settings",
    [OidcSettings("http://login.example", CLIENT), OidcSettings(ISSUER), OidcSettings("x", "y")],
)
def test_settings_that_cannot_be_safe_are_refused(issuer: Issuer, settings: OidcSettings) -> None:
    with pytest.raises(InvalidInput, match=r"IMAGINE_SERVICE_OIDC|https"):
        door(issuer, settings)


def test_the_environment_chooses_the_login() -> None:
    environment = {
        "IMAGINE_SERVICE_OIDC_ISSUER": ISSUER,
        "IMAGINE_SERVICE_OIDC_CLIENT_SECRET": "hush",
        "IMAGINE_SERVICE_OIDC_ROLES": "staff=user, chief=admin",
    }
    found = ServiceSettings.from_environment(environment).oidc
    assert (found.issuer, found.role_of("chief"), found.role_of("user")) == (
        ISSUER,
        "admin",
        "user",
    )
    assert "hush" not in repr(found)
    with pytest.raises(InvalidInput, match="OIDC_ROLES"):
        ServiceSettings.from_environment({"IMAGINE_SERVICE_OIDC_ROLES": "staff"})


# Over HTTP


@pytest.fixture
def organised(
    service: Service, http: TestClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """The service of these tests with the login of an organisation, and a fresh browser."""
    settings = OidcSettings(ISSUER, CLIENT)
    sign_in = SignIn(settings, b"k" * 32, service.people.add_tenant, issuer.http)
    monkeypatch.setattr(service, "sign_in", sign_in)
    doorkeeper = Doorkeeper(service.api_keys, chosen(), service.visits, sign_in.caller)
    monkeypatch.setattr(service, "doorkeeper", doorkeeper)
    yield TestClient(http.app, base_url="http://127.0.0.1", follow_redirects=False)


def logged_in(browser: TestClient, issuer: Issuer, **claims: Any) -> str:
    """Log in; returns the csrf token."""
    gone = browser.get("/auth/login?next=/me")
    assert gone.status_code == 303
    back = browser.get(f"/auth/callback?{issuer.log_in(gone.headers['location'], **claims)}")
    assert back.status_code == 200 and 'url=/me"' in back.text
    token: str = browser.get("/v1/session").json()["csrf_token"]
    return token


def test_a_bearer_token_opens_the_api_for_its_role(organised: TestClient, issuer: Issuer) -> None:
    ada = {"Authorization": f"Bearer {issuer.token()}"}
    reviewer = {"Authorization": f"Bearer {issuer.token(roles=['reviewer'])}"}
    nobody = {"Authorization": f"Bearer {issuer.token(roles=[])}"}
    assert organised.get("/v1/identities", headers=ada).status_code == 200
    assert organised.get("/v1/session", headers=ada).json()["csrf_token"] is None
    for headers, status, code in (
        (reviewer, 403, "scope_missing"),
        (nobody, 403, "scope_missing"),
        ({"Authorization": "Bearer a.b.c"}, 401, "sign_in_refused"),
    ):
        refused = organised.get("/v1/identities", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)


def test_keys_of_programs_go_on_working(organised: TestClient, home: House) -> None:
    assert organised.get("/v1/identities", headers=home.headers).status_code == 200


def test_a_browser_signs_in_asks_changes_and_signs_out(
    organised: TestClient, issuer: Issuer
) -> None:
    token = logged_in(organised, issuer)
    assert organised.get("/v1/identities").json()["data"] == []
    asked = {"text": "I agree."}
    made = organised.post("/v1/consent_tokens", json=asked, headers={CSRF_HEADER: token})
    assert made.status_code == 201
    assert organised.post("/auth/logout", headers={CSRF_HEADER: token}).status_code == 204
    assert organised.get("/v1/identities").status_code == 401


def test_a_change_that_no_page_of_ours_asked_for_is_refused(
    organised: TestClient, issuer: Issuer
) -> None:
    token = logged_in(organised, issuer)
    wrong: list[dict[str, str]] = [
        {},
        {CSRF_HEADER: ""},
        {CSRF_HEADER: csrf_token("another secret")},
        {CSRF_HEADER: token, "Sec-Fetch-Site": "cross-site"},
    ]
    for headers in wrong:
        refused = organised.post("/v1/consent_tokens", json={"text": "I"}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "request_forged")
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert organised.get("/v1/identities", headers=foreign).status_code == 403


def test_the_cookies_are_closed_to_scripts_and_other_sites(
    organised: TestClient, issuer: Issuer
) -> None:
    gone = organised.get("/auth/login")
    login = gone.headers["set-cookie"].lower()
    back = organised.get(f"/auth/callback?{issuer.log_in(gone.headers['location'])}")
    session = next(
        one for one in back.headers.get_list("set-cookie") if one.startswith(SESSION_COOKIE)
    ).lower()
    assert "httponly" in login and "samesite=lax" in login and "path=/auth" in login
    assert "httponly" in session and "samesite=strict" in session


def test_a_login_that_went_wrong_says_so(organised: TestClient, issuer: Issuer) -> None:
    for query in ("error=access_denied", "", "code=x&state=y"):
        refused = organised.get(f"/auth/callback?{query}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "sign_in_refused")


def test_without_an_organisation_there_is_no_login(http: TestClient) -> None:
    for path in ("/auth/login", "/auth/callback?code=a"):
        assert http.get(path).status_code == 404
