"""What can go wrong, said once: the code on the wire, the HTTP status, the exit code, whether trying again helps.

Own mistakes raise builtin exceptions; this family is for what a client, an operator or a command is told.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The `code` of every HTTP envelope and error frame. The first ten are KamaChat's."""

    SUCCESS = 1000
    BAD_PARAMETER = 1001
    NO_SUCH_GROUP = 1003
    BUSY = 1005
    UNAUTHORISED = 1006
    FORBIDDEN = 1007
    NOT_FOUND = 1008
    RATE_LIMITED = 1009
    DATABASE_ERROR = 1010
    CACHE_ERROR = 1011


class CloseCode(IntEnum):
    """Why a WebSocket ended. 4000-4499: come back and be caught up, except 4001-4003 and 4009."""

    NORMAL = 1000
    GOING_AWAY = 1001
    LOST = 1006  # never on the wire: what is on record for a connection that ended without a close frame
    INVALID_DATA = 1007
    TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    REPLACED = 4001
    KICKED = 4002
    FORBIDDEN = 4003
    TOKEN_EXPIRED = 4005
    SLOW_CONSUMER = 4008
    ABUSE = 4009
    NO_PONG = 4010


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_CONNECT = 3
    AUTH = 4
    TIMEOUT = 5
    INTERRUPTED = 130


class KamaError(Exception):
    """Something to tell the other side. `field` names what was wrong, `hint` what would mend it."""

    code = Code.BUSY
    http_status = 500
    exit_code = ExitCode.FAILED
    retriable = False

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint


class BadParameter(KamaError):
    code = Code.BAD_PARAMETER
    http_status = 400


class TooLarge(BadParameter):
    http_status = 413


class TooSlow(BadParameter):
    http_status = 408


class MethodNotAllowed(BadParameter):
    http_status = 405


class NoSuchGroup(KamaError):
    code = Code.NO_SUCH_GROUP
    http_status = 404


class Busy(KamaError):
    code = Code.BUSY
    http_status = 503
    retriable = True


class Unauthorised(KamaError):
    code = Code.UNAUTHORISED
    http_status = 401
    exit_code = ExitCode.AUTH


class Forbidden(KamaError):
    code = Code.FORBIDDEN
    http_status = 403
    exit_code = ExitCode.AUTH


class NotFound(KamaError):
    code = Code.NOT_FOUND
    http_status = 404


class RateLimited(KamaError):
    """`retry_after` is in seconds."""

    code = Code.RATE_LIMITED
    http_status = 429
    retriable = True

    def __init__(self, message: str, *, retry_after: float, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class DatabaseFailed(KamaError):
    code = Code.DATABASE_ERROR
    http_status = 500


class SettingsError(KamaError):
    """A setting that cannot be used: read from a file, the environment or a flag."""

    code = Code.BAD_PARAMETER
    http_status = 400
    exit_code = ExitCode.USAGE


class CannotConnect(KamaError):
    """No node answers at the address."""

    http_status = 503
    exit_code = ExitCode.CANNOT_CONNECT
    retriable = True


class TimedOut(KamaError):
    """The node answers, but what was waited for did not happen in time."""

    http_status = 504
    exit_code = ExitCode.TIMEOUT
    retriable = True


_BY_CODE: dict[int, type[KamaError]] = {
    kind.code: kind for kind in (BadParameter, NoSuchGroup, Busy, Unauthorised, Forbidden, NotFound, DatabaseFailed)
}


def error_from_code(code: int, message: str, *, field: str | None = None, retry_after: float = 1.0) -> KamaError:
    """What a node answered, as the error that it was there. `retry_after` in seconds, for a rate limit."""
    if code == Code.RATE_LIMITED:
        return RateLimited(message, retry_after=retry_after, field=field)
    return _BY_CODE.get(code, KamaError)(message, field=field)
