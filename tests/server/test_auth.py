"""Tokens: what is good, what is refused, and that a refusal says why without repeating the token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from kama.errors import Unauthorised
from kama.server.auth import ACCESS, REFRESH, ROLES, Identity, TokenKeeper, _QuickJWS

SECRET = "s" * 32
KEEPER = TokenKeeper(SECRET)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"user_id": "U1", "sub": ACCESS, "iss": "kama_chat", "iat": now, "exp": now + 60, **changes}
    return {name: value for name, value in made.items() if value is not ...}


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: Any, header: Any = None, secret: str = SECRET) -> str:
    """A token signed by hand: no library is asked whether it makes sense."""
    body = f"{part(header or {'alg': 'HS256', 'typ': 'JWT'})}.{part(payload)}"
    return f"{body}.{part(hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest())}"


def refusal(token: str, keeper: TokenKeeper = KEEPER) -> str:
    with pytest.raises(Unauthorised) as caught:
        keeper.verify(token)
    return caught.value.message


# --- tokens that come again


def test_a_token_that_comes_again_is_not_checked_in_full_again(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = TokenKeeper(SECRET)
    token = keeper.issue("U1", 60)
    first = keeper.verify(token)
    monkeypatch.setattr(keeper, "_secret", "x" * 32)
    assert keeper.verify(token) is first


def test_a_token_that_comes_again_when_it_has_expired_is_refused() -> None:
    keeper = TokenKeeper(SECRET)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        token = keeper.issue("U1", 60)
        keeper.verify(token)
        clock.shift(59.9)
        keeper.verify(token)
        clock.shift(0.1)
        assert refusal(token, keeper) == "the token has expired"


def test_a_token_that_was_refused_is_refused_again() -> None:
    token = KEEPER.issue("U1", 60)
    other = TokenKeeper("o" * 32)
    assert refusal(token, other) == refusal(token, other)


def test_no_more_than_so_many_tokens_are_remembered() -> None:
    keeper = TokenKeeper(SECRET)
    for number in range(5_000):
        keeper.verify(signed(claims(user_id=f"U{number}")))
    assert len(keeper._verified) < 5_000


# --- the secret


@pytest.mark.parametrize(("algorithm", "needed"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_must_be_as_long_as_its_algorithm_requires(algorithm: str, needed: int) -> None:
    keeper = TokenKeeper("s" * needed, algorithm=algorithm)
    assert keeper.verify(keeper.issue("U1", 60)).user_id == "U1"
    with pytest.raises(ValueError, match=f"at least {needed} bytes for {algorithm}, got {needed - 1}"):
        TokenKeeper("s" * (needed - 1), algorithm=algorithm)


@pytest.mark.parametrize(
    "key",
    [
        f"-----BEGIN PUBLIC KEY-----\n{'A' * 43}=\n-----END PUBLIC KEY-----\n",
        '{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}',
    ],
)
def test_a_key_of_another_kind_is_no_secret(key: str) -> None:
    with pytest.raises(ValueError, match="another kind of key"):
        TokenKeeper(key)


def test_a_secret_is_measured_in_bytes() -> None:
    TokenKeeper("ü" * 16)
    with pytest.raises(ValueError, match="got 30"):
        TokenKeeper("ü" * 15)


@pytest.mark.parametrize("algorithm", ["none", "hs256", "RS256", "ES256", ""])
def test_any_other_algorithm_is_refused(algorithm: str) -> None:
    with pytest.raises(ValueError, match="expected an algorithm of HS256, HS384, HS512, got"):
        TokenKeeper("s" * 64, algorithm=algorithm)


# --- good tokens


@pytest.mark.parametrize("role", ROLES)
def test_an_issued_token_speaks_for_its_user(role: Any) -> None:
    before = time.time()
    identity = KEEPER.verify(KEEPER.issue("U1", 60, role))
    assert (identity.user_id, identity.role) == ("U1", role)
    assert before + 59 <= identity.expires_at <= time.time() + 60
    assert identity.token_id


def test_every_token_has_an_id_of_its_own() -> None:
    assert KEEPER.verify(KEEPER.issue("U1", 60)).token_id != KEEPER.verify(KEEPER.issue("U1", 60)).token_id


def test_an_issued_token_has_kamachats_claims() -> None:
    payload = jwt.decode(KEEPER.issue("U1", 90, now=1000.7), options={"verify_signature": False})
    assert payload.pop("jti")
    assert payload == {"user_id": "U1", "sub": ACCESS, "iss": "kama_chat", "iat": 1000, "exp": 1090}


def test_a_token_of_a_kamachat_backend_is_good() -> None:
    identity = KEEPER.verify(signed(claims()))
    assert (identity.user_id, identity.role, identity.token_id) == ("U1", "user", None)


def test_a_token_lives_for_a_second_at_least() -> None:
    assert KEEPER.verify(KEEPER.issue("U1", 0.2)).expires_at > time.time()


# --- refused tokens


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sub": REFRESH}, "expected an access token, got a refresh token"),
        ({"sub": "id_token"}, "expected a token whose sub is access_token, got another"),
        ({"iss": "elsewhere"}, "expected a token issued by kama_chat, got another issuer"),
        ({"exp": 1_000_000_000}, "the token has expired"),
        ({"user_id": "G1"}, "expected a token whose user_id is U and"),
        ({"user_id": "U" * 21}, "expected a token whose user_id is U and"),
        ({"user_id": 7}, "expected a token whose user_id is U and"),
        ({"role": "root"}, "expected a role of user, viewer, admin, got another"),
        ({"role": ["admin"]}, "expected a role of"),
        ({"role": None}, "expected a role of"),
        ({"iat": 10**12}, "expected a valid JSON Web Token"),
        ({"nbf": 10**12}, "expected a valid JSON Web Token"),
        ({"exp": "soon"}, "expected a valid JSON Web Token"),
        ({"exp": []}, "expected a valid JSON Web Token"),
        ({"exp": 10**400}, "expected a token whose exp is a time in seconds"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    assert refusal(signed(claims(**changes))).startswith(why)


@pytest.mark.parametrize("name", ["exp", "iss", "sub", "user_id"])
def test_a_token_without_a_claim_is_refused_by_name(name: str) -> None:
    assert refusal(signed(claims(**{name: ...}))) == f"expected a token with the claim {name}, got none"


def test_a_token_of_another_secret_is_refused() -> None:
    assert "signature" in refusal(signed(claims(), secret="x" * 32))


def test_a_token_that_was_changed_after_signing_is_refused() -> None:
    header, payload, signature = signed(claims(role="user")).split(".")
    forged = ".".join((header, part(claims(role="admin")), signature))
    assert "signature" in refusal(forged)


def test_a_token_without_a_signature_is_refused() -> None:
    for header in ({"alg": "none"}, {"alg": "None"}, {"alg": ""}, {}):
        refusal(f"{part(header)}.{part(claims())}.")


def test_a_token_of_another_algorithm_is_refused() -> None:
    secret = "s" * 64
    other = jwt.encode(claims(), secret, algorithm="HS512")
    assert refusal(other, TokenKeeper(secret)) == "expected a token signed with HS256, got another algorithm"


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b.c", "é.é.é", "\udc80", "\0", part(b"[" * 100_000) + ".e30.x", part([]) + ".e30.x",
        signed(b"[" * 100_000), signed([]), signed(b"\xff"), signed(claims(), header={"alg": "HS256", "crit": ["x"]}),
        signed(claims(), header={"alg": "HS256", "b64": False}), signed(claims(), header={"alg": []}),
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(token: str) -> None:
    refusal(token)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.lists(st.binary(max_size=20).map(part), min_size=2, max_size=4).map(".".join))
def test_no_text_is_a_token_by_chance(token: str) -> None:
    refusal(token)


anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none(), max_size=1)
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["exp", "iat", "nbf", "iss", "sub", "user_id", "role", "jti", "aud", "token_id"]), anything)
def test_any_claim_of_any_type_is_good_or_refused(name: str, value: Any) -> None:
    try:
        identity = KEEPER.verify(signed(claims(**{name: value})))
    except Unauthorised as error:
        assert error.message
    else:
        assert (identity.user_id[0], identity.role in ROLES) == ("U", True)


def test_a_refusal_never_repeats_the_token() -> None:
    for token in (signed(claims(exp=1)), signed(claims(), secret="x" * 32), "secret.secret.secret", signed({"a": "b"})):
        message = refusal(token)
        assert not any(piece in message for piece in token.split("."))


# --- what an identity may do


def test_only_an_admin_may_act_for_others() -> None:
    """KamaChat defects 18 to 20: any user could connect, log out and send as anybody."""
    assert Identity("U1", "user", 0).may_act_for("U1")
    assert not Identity("U1", "user", 0).may_act_for("U2")
    assert not Identity("U1", "viewer", 0).may_act_for("U2")
    assert Identity("U1", "admin", 0).may_act_for("U2")


def test_acting_for_somebody_keeps_the_tokens_rights_and_end() -> None:
    admin = Identity("U1", "admin", 99, "id")
    assert admin.acting_as("U2") == Identity("U2", "admin", 99, "id")
    assert admin.acting_as("U1") is admin


@given(st.binary(max_size=12) | st.text("AQgw-_=+/ .", max_size=12).map(str.encode))
def test_a_piece_of_a_token_is_read_as_pyjwt_reads_it(segment: bytes) -> None:
    def read(jws: type[jwt.PyJWS]) -> bytes | str:
        try:
            return jws._decode_base64url_segment(segment, "payload")
        except jwt.DecodeError as error:
            return str(error)

    assert read(_QuickJWS) == read(jwt.PyJWS)
