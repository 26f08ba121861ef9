"""The check of a login: HS256 and `exp`, and that the token is the user's."""

from __future__ import annotations

import os

import jwt

_SECRET = os.environ["PEER_SECRET"]


def is_good(authorization: str | None, user_id: str) -> bool:
    """`authorization`: the header, "Bearer …"."""
    token = (authorization or "").removeprefix("Bearer ")
    try:
        claims = jwt.decode(token, _SECRET, algorithms=["HS256"], options={"require": ["exp"], "verify_iss": False})
    except jwt.InvalidTokenError:
        return False
    return bool(claims.get("user_id") == user_id)
