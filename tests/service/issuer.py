"""A small issuer of OpenID Connect, for tests: discovery, keys, and codes for tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import RSAKey

ISSUER = "https://login.example"
CLIENT = "imagine"


@dataclass
class Issuer:
    """Signs whatever a test wants to be said."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1"}))
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    is_away: bool = False

    @property
    def http(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self.answer))

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append(path)
        if self.is_away:
            raise httpx2.ConnectError("nobody there")
        if path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
            told = {name: f"{ISSUER}/{place}" for name, place in places.items()}
            told |= {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", **self.metadata}
            return httpx2.Response(200, json=told)
        if path == "/keys":
            return httpx2.Response(200, json={"keys": [self.key.as_dict(private=False)]})
        fields = {name: one[0] for name, one in parse_qs(request.content.decode()).items()}
        begun = self.codes.pop(fields["code"], None)
        digest = hashlib.sha256(fields["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if begun is None or begun["code_challenge"] != challenge:
            return httpx2.Response(400, json={"error": "invalid_grant"})
        token = self.token(nonce=begun["nonce"], **begun["claims"])
        return httpx2.Response(200, json={"id_token": token, "token_type": "Bearer"})

    def log_in(self, url: str, **claims: Any) -> str:
        """What a browser sees there: somebody logs in and is sent back with this query."""
        asked = {name: one[0] for name, one in parse_qs(urlsplit(url).query).items()}
        code = f"code{len(self.codes)}"
        self.codes[code] = {**asked, "claims": claims}
        return f"code={code}&state={asked['state']}"

    def token(self, **changes: Any) -> str:
        """A token of Ada, a developer, unless it is changed; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "ada",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "roles": ["developer"],
            **changes,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, told, self.key)

    def unsigned(self) -> str:
        """As `token`, signed by nobody."""
        parts = [{"alg": "none"}, {"iss": ISSUER, "sub": "ada", "aud": CLIENT, "roles": ["admin"]}]
        told = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in parts]
        return ".".join(one.rstrip("=") for one in told) + "."
