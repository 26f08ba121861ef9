"""Tokens: issue and verify. Claims are KamaChat's, so a token of its backend with the same secret is good here.

Claims: `user_id`, `sub` (`access_token` or `refresh_token`), `iss`, `iat`, `exp`; ours: `role`, `jti`.
RFC 7519 (JWT), RFC 7515 (JWS). Light to import: `kama token` needs nothing else.
"""

from __future__ import annotations

import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jwt
from cachetools import LRUCache
from jwt.algorithms import HMACAlgorithm

from kama.errors import Unauthorised
from kama.protocol import is_user_id

Role = Literal["user", "viewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
ACCESS = "access_token"
REFRESH = "refresh_token"
_VERIFIED = 4096  # tokens
# RFC 7518, section 3.2: a key at least as long as the hash.
_MIN_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_HASHES = {"HS256": HMACAlgorithm.SHA256, "HS384": HMACAlgorithm.SHA384, "HS512": HMACAlgorithm.SHA512}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a verified token speaks for. `expires_at` is Unix seconds."""

    user_id: str
    role: Role
    expires_at: float
    token_id: str | None = None

    def may_act_for(self, user_id: str) -> bool:
        return self.user_id == user_id or self.role == "admin"

    def acting_as(self, user_id: str) -> Identity:
        """The same token's rights and end, for the connection or request of `user_id`."""
        return self if user_id == self.user_id else replace(self, user_id=user_id)


class _PreparedHMAC(HMACAlgorithm):
    """Of one secret, which is found once to be no key of another kind: that takes as long as a third of a check."""

    def __init__(self, algorithm: str, secret: str) -> None:
        super().__init__(_HASHES[algorithm])
        self._key = super().prepare_key(secret)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._key


class _QuickJWS(jwt.PyJWS):
    """PyJWS looks at each character of a token in turn. Where all is as usual that is told faster; else it judges."""

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        if len(segment) % 4 != 1 and not segment.translate(None, _BASE64URL):
            decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
            if urlsafe_b64encode(decoded).rstrip(b"=") == segment:
                return decoded
        return jwt.PyJWS._decode_base64url_segment(segment, name)


class _PreparedJWT(jwt.PyJWT):
    """PyJWT for one algorithm, one secret, and the claims that each token of ours has."""

    def __init__(self, algorithm: str, secret: str) -> None:
        super().__init__({"enforce_minimum_key_length": True, "require": ["exp", "iss", "sub", "user_id"]})
        self._jws = _QuickJWS([], self._get_sig_options())
        self._jws.register_algorithm(algorithm, _PreparedHMAC(algorithm, secret))


class TokenKeeper:
    """Issues and verifies tokens with one shared secret.

    Raises ValueError when made with an algorithm that is not one of the three, or with a secret that is too short for
    it or a key of another kind.
    """

    def __init__(self, secret: str, *, algorithm: str = "HS256", issuer: str = "kama_chat") -> None:
        if algorithm not in _MIN_SECRET_BYTES:
            raise ValueError(f"expected an algorithm of {', '.join(_MIN_SECRET_BYTES)}, got {algorithm!r}")
        needed, given = _MIN_SECRET_BYTES[algorithm], len(secret.encode())
        if given < needed:
            raise ValueError(f"expected a secret of at least {needed} bytes for {algorithm}, got {given}")
        self._secret = secret
        self._algorithm = algorithm
        self._issuer = issuer
        self._algorithms = [algorithm]
        try:
            self._jwt = _PreparedJWT(algorithm, secret)
        except jwt.InvalidKeyError as error:
            raise ValueError(f"expected a secret for {algorithm}, got another kind of key: {error}") from None
        self._verified: LRUCache[str, Identity] = LRUCache(_VERIFIED)

    def issue(self, user_id: str, ttl: float, role: Role = "user", *, now: float | None = None) -> str:
        """An access token that ends after `ttl` seconds."""
        issued = int(time.time() if now is None else now)
        claims: dict[str, Any] = {
            "user_id": user_id,
            "sub": ACCESS,
            "iss": self._issuer,
            "iat": issued,
            "exp": issued + max(1, int(ttl)),
            "jti": uuid.uuid4().hex,
        }
        if role != "user":
            claims["role"] = role
        return self._jwt.encode(claims, self._secret, algorithm=self._algorithm)

    def verify(self, token: str) -> Identity:
        """Raises Unauthorised, which says what is wrong and never repeats the token.

        A token that was good is so until it expires: whoever comes back with it is not checked in full again.
        """
        known = self._verified.get(token)
        if known is not None:
            if int(known.expires_at) > time.time():  # in whole seconds, as when it was verified
                return known
            del self._verified[token]
        identity = self._verify(token)
        self._verified[token] = identity
        return identity

    def _verify(self, token: str) -> Identity:
        try:
            claims = self._jwt.decode(token, self._secret, self._algorithms, issuer=self._issuer)
        except jwt.ExpiredSignatureError:
            raise Unauthorised("the token has expired", hint="get a new one") from None
        except jwt.InvalidSignatureError:
            raise Unauthorised("the token's signature does not match this node's secret") from None
        except jwt.InvalidAlgorithmError:
            raise Unauthorised(f"expected a token signed with {self._algorithm}, got another algorithm") from None
        except jwt.InvalidIssuerError:
            raise Unauthorised(f"expected a token issued by {self._issuer}, got another issuer") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorised(f"expected a token with the claim {error.claim}, got none") from None
        except (jwt.InvalidTokenError, UnicodeEncodeError) as error:
            why = "it is not text" if isinstance(error, UnicodeEncodeError) else error
            raise Unauthorised(f"expected a valid JSON Web Token, got one that is not: {why}") from None
        return _identity(claims)


def _identity(claims: dict[str, Any]) -> Identity:
    if claims["sub"] == REFRESH:
        raise Unauthorised("expected an access token, got a refresh token")
    if claims["sub"] != ACCESS:
        raise Unauthorised(f"expected a token whose sub is {ACCESS}, got another")
    user_id = claims["user_id"]
    if not isinstance(user_id, str) or not is_user_id(user_id):
        raise Unauthorised("expected a token whose user_id is U and 1 to 19 of [A-Za-z0-9_-], got another")
    role = claims.get("role", "user")
    if role not in ROLES:
        raise Unauthorised(f"expected a role of {', '.join(ROLES)}, got another")
    token_id = claims.get("jti") or claims.get("token_id")
    try:
        expires_at = float(claims["exp"])
    except OverflowError:
        raise Unauthorised("expected a token whose exp is a time in seconds, got a very large number") from None
    return Identity(user_id, role, expires_at, token_id if isinstance(token_id, str) else None)
