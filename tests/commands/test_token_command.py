"""`kama token`: stdout is the token alone; `inspect` tells what is in one and whether it is good."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest
from command_line import Kama
from support import KEEPER, SECRET

from kama.protocol import ISSUER


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(token, SECRET, algorithms=["HS256"], issuer=ISSUER)
    return claims


def test_stdout_is_the_token_alone(kama: Kama, secret: str) -> None:
    done = kama("token", "U123456")
    assert (done.code, done.err) == (0, "")
    assert KEEPER.verify(done.out.removesuffix("\n")).user_id == "U123456"


@pytest.mark.parametrize(
    "arguments", [("U1", "--ttl", "1h"), ("--ttl", "1h", "U1"), ("issue", "U1", "--ttl", "1h"), ("--ttl=1h", "U1")]
)
def test_options_stand_before_or_after_the_user(kama: Kama, secret: str, arguments: tuple[str, ...]) -> None:
    claims = claims_of(kama("token", *arguments).out.strip())
    assert (claims["user_id"], int(str(claims["exp"])) - int(str(claims["iat"]))) == ("U1", 3600)


def test_without_a_ttl_a_token_is_good_for_auth_access_ttl(
    kama: Kama, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMA_AUTH__ACCESS_TTL", "2m")
    claims = claims_of(kama("token", "U1").out.strip())
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 120


@pytest.mark.parametrize("role", ["user", "viewer", "admin"])
def test_a_token_has_the_role_that_was_asked_for(kama: Kama, secret: str, role: str) -> None:
    assert KEEPER.verify(kama("token", "U1", "--role", role).out.strip()).role == role


def test_json_tells_what_the_token_says(kama: Kama, secret: str) -> None:
    told = kama("token", "U1", "--ttl", "1h", "--role", "viewer", "--json").json
    identity = KEEPER.verify(told["token"])
    assert (told["user_id"], told["role"], told["expires_in"]) == ("U1", "viewer", 3600)
    assert told["expires_at"] == identity.expires_at and identity.role == "viewer"


def test_json_tells_the_true_end_of_a_token_of_less_than_a_second(kama: Kama, secret: str) -> None:
    told = kama("token", "U1", "--ttl", "10ms", "--json").json
    assert told["expires_in"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("x",),
        ("U",),
        ("U" * 21,),
        ("G1",),
        ("U1 ",),
        ("U1", "U2"),
        ("U1", "--ttl", "soon"),
        ("U1", "--ttl", "0s"),
        ("U1", "--ttl", "-5s"),
        ("U1", "--ttl", "inf"),
        ("U1", "--ttl", "9999d"),
        ("U1", "--role", "king"),
        ("--ttl", "1h"),
    ],
)
def test_what_cannot_be_a_token_is_a_usage_error_and_prints_none(
    kama: Kama, secret: str, arguments: tuple[str, ...]
) -> None:
    done = kama("token", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("kama: error: ") and "hint: kama token issue --help" in done.err


def test_without_a_secret_it_says_what_makes_one(kama: Kama) -> None:
    done = kama("token", "U1")
    assert (done.code, done.out) == (2, "")
    assert "there is no secret" in done.err and "hint: start a node once (kama serve)" in done.err


def test_a_short_secret_is_refused_and_not_repeated(kama: Kama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_AUTH__SECRET", "hunter2")
    done = kama("token", "U1")
    assert done.code == 2
    assert "auth.secret (KAMA_AUTH__SECRET): expected a secret of at least 32 bytes for HS256, got 7" in done.err
    assert "hunter2" not in done.err


def test_a_secret_of_bytes_that_are_no_text_is_refused_and_not_repeated(
    kama: Kama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMA_AUTH__SECRET", "hunter2\udcff" * 9)
    done = kama("token", "U1")
    assert done.code == 2 and "auth.secret" in done.err and "hunter2" not in done.err


def test_the_secret_of_a_settings_file_is_used_and_named_by_it(kama: Kama, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f'[auth]\nsecret = "{SECRET}"')
    assert KEEPER.verify(kama("token", "U1", "--config", str(file)).out.strip())
    file.write_text('[auth]\nsecret = "short"')
    assert f"auth.secret ({file})" in kama("token", "U1", "--config", str(file)).err


# --- inspect -------------------------------------------------------------------------------------------


def test_a_good_token_is_shown_with_its_claims_and_the_time_it_has_left(kama: Kama, secret: str) -> None:
    done = kama("token", "inspect", KEEPER.issue("U1", 5400))
    assert done.code == 0
    assert '"user_id": "U1"' in done.out and "ends in 1h" in done.out and done.out.endswith("valid\n")


@pytest.mark.parametrize("arguments", [("inspect",), ("inspect", "-")])
def test_a_token_can_come_over_stdin(kama: Kama, secret: str, arguments: tuple[str, ...]) -> None:
    assert kama("token", *arguments, stdin=KEEPER.issue("U1", 60) + "\n").code == 0


def test_json_has_claims_validity_reason_and_time_left(kama: Kama, secret: str) -> None:
    told = kama("token", "inspect", KEEPER.issue("U1", 60), "--json").json
    assert (told["valid"], told["reason"], told["claims"]["user_id"]) == (True, None, "U1")
    assert 55 <= told["time_left"] <= 60


def test_an_expired_token_is_told_with_how_long_ago_it_ended(kama: Kama, secret: str) -> None:
    done = kama("token", "inspect", KEEPER.issue("U1", 60, now=time.time() - 3660))
    assert done.code == 4
    assert "ended 1h" in done.out and "not valid: the token has expired" in done.out


def forged(**claims: object) -> str:
    # Good for a day: some are made when the tests are collected, and looked at much later.
    good = {"user_id": "U1", "sub": "access_token", "iss": ISSUER, "iat": 1, "exp": time.time() + 86400}
    return jwt.encode({**good, **claims}, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (jwt.encode({"user_id": "U1"}, "another secret, just as long as it has to be"), "signature does not match"),
        (forged(sub="refresh_token"), "got a refresh token"),
        (forged(iss="others"), "issued by kama_chat"),
        (forged(user_id="x"), "user_id"),
        (forged(role="king"), "expected a role"),
        ("nonsense", "JSON Web Token"),
        ("", "JSON Web Token"),
        ("caf\u00e9.x.y", "JSON Web Token"),
    ],
)
def test_a_token_that_is_not_good_is_told_why(kama: Kama, secret: str, token: str, reason: str) -> None:
    done = kama("token", "inspect", "-", stdin=token)
    assert done.code == 4
    assert "not valid: " in done.out and reason in done.out
    told = kama("token", "inspect", "-", "--json", stdin=token)
    assert told.code == 4 and told.json["valid"] is False and reason in told.json["reason"]


@pytest.mark.parametrize("exp", [1e300, float("inf"), "soon", None, 10**30])
def test_a_token_with_an_end_that_is_no_time_is_shown_all_the_same(kama: Kama, secret: str, exp: object) -> None:
    done = kama("token", "inspect", forged(exp=exp))
    assert done.code in (0, 4)
    assert '"user_id": "U1"' in done.out and "valid" in done.out and done.err == ""


def test_claims_with_escape_sequences_only_print(kama: Kama, secret: str) -> None:
    done = kama("token", "inspect", forged(user_id="\x1b[2J\u202e"))
    assert "\x1b" not in done.out and "\u202e" not in done.out


def test_a_token_can_be_looked_into_without_a_secret(kama: Kama) -> None:
    done = kama("token", "inspect", KEEPER.issue("U1", 60))
    assert done.code == 4
    assert '"user_id": "U1"' in done.out and "not valid: it cannot be checked: there is no secret" in done.out


def test_stdin_that_is_no_text_is_a_usage_error(kama: Kama, secret: str) -> None:
    done = kama("token", "inspect", "-", stdin=b"\xff\xfe")
    assert done.code == 2 and "expected UTF-8 on stdin" in done.err
