"""RedisBackend: cached conversations as Redis hashes, shared by all nodes.

Keys are KamaChat's: `message_list_<a>_<b>` (ids sorted) and `group_messagelist_<g>`. Fields: `v` the version,
`<seq>` a message as JSON, `s<seq>` a status that rose since. One script call per change, O(1) in the length of
the conversation. When Redis is away the node goes on without it: one warning, and a probe until it is back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from kama.backoff import Backoff
from kama.protocol import Message, encode
from kama.server.cache import Change, Snapshot
from kama.server.tasks import cancel, spawn

log = structlog.get_logger("kama.cache")

_TIMEOUT = 1.0
_PROBE_FIRST = 0.1
_PROBE_MAX = 5.0
_decode = msgspec.json.Decoder(Message).decode

# KEYS[1]; ARGV: version, ttl in ms, max messages, number of messages, (seq, json)…, (seq, status)…
_APPLY = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
local kept = redis.call('HGET', KEYS[1], 'v')
if not kept or tonumber(kept) >= tonumber(ARGV[1]) then return 0 end
if tonumber(kept) ~= tonumber(ARGV[1]) - 1 then return redis.call('DEL', KEYS[1]) end
if tonumber(ARGV[4]) >= tonumber(ARGV[3]) then redis.call('DEL', KEYS[1]) end
local at = 5
for _ = 1, tonumber(ARGV[4]) do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  local old = tostring(tonumber(ARGV[at]) - tonumber(ARGV[3]))
  redis.call('HDEL', KEYS[1], old, 's' .. old)
  at = at + 2
end
while at <= #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then
    local status = redis.call('HGET', KEYS[1], 's' .. ARGV[at])
    if not status or tonumber(status) < tonumber(ARGV[at + 1]) then
      redis.call('HSET', KEYS[1], 's' .. ARGV[at], ARGV[at + 1])
    end
  end
  at = at + 2
end
redis.call('HSET', KEYS[1], 'v', ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# KEYS[1]; ARGV: version, ttl in ms, (seq, json)…
_FILL = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local kept = redis.call('HGET', KEYS[1], 'v')
if kept and tonumber(kept) >= tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[1])
for at = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


def cache_key(conversation: str) -> str:
    prefix = "group_messagelist_" if conversation.startswith("G") else "message_list_"
    return prefix + conversation


class RedisBackend:
    """`ttl` in seconds. Never raises: what Redis does not answer is not cached."""

    def __init__(self, url: str, ttl: float, max_messages: int) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),  # a dead Redis must be noticed at once, not after redis-py's own retries
            socket_connect_timeout=_TIMEOUT,
            socket_timeout=_TIMEOUT,
        )
        self._apply = self._redis.register_script(_APPLY)
        self._fill = self._redis.register_script(_FILL)
        self._ttl_ms = int(ttl * 1000)
        self._max = max_messages
        self._probe: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        return self._probe is None

    async def read(self, conversation: str) -> Snapshot | None:
        try:
            fields: dict[Any, Any] = await self._redis.hgetall(cache_key(conversation))
        except (RedisError, OSError) as error:
            # Under this key KamaChat keeps a string: then there is no copy of ours, and Redis is well.
            if not str(error).startswith("WRONGTYPE"):
                self._went_away(error)
            return None
        try:
            return _snapshot(conversation, fields)
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("cached conversation cannot be read", conversation=conversation, error=str(error))
            return None

    async def write(self, tasks: Sequence[Change | Snapshot]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for task in tasks:
                    script = self._fill if isinstance(task, Snapshot) else self._apply
                    await script(keys=[cache_key(task.conversation)], args=self._args(task), client=pipe)
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._went_away(error)

    def _args(self, task: Change | Snapshot) -> list[Any]:
        messages = task.messages[-self._max :]
        pairs = [part for message in messages for part in (message.seq, encode(message))]
        if isinstance(task, Snapshot):
            return [task.version, self._ttl_ms, *pairs]
        statuses = [int(part) for pair in task.statuses.items() for part in pair]
        return [task.version, self._ttl_ms, self._max, len(messages), *pairs, *statuses]

    def _went_away(self, error: Exception) -> None:
        if self._probe is None:
            log.warning("Redis does not answer: history comes from the store until it is back", error=str(error))
            self._probe = spawn(self._wait_until_back(), name="redis probe")

    async def _wait_until_back(self) -> None:
        backoff = Backoff(_PROBE_FIRST, _PROBE_MAX)
        while True:
            await asyncio.sleep(backoff.take() * random.uniform(0.5, 1.0))
            try:
                await self._redis.ping()
            except (RedisError, OSError):
                continue
            log.info("Redis is back")
            self._probe = None
            return

    async def close(self) -> None:
        await cancel(self._probe)
        await self._redis.aclose()


def _snapshot(conversation: str, fields: dict[bytes, bytes]) -> Snapshot | None:
    version = fields.pop(b"v", None)
    if version is None:
        return None
    messages = [_decode(value) for name, value in fields.items() if not name.startswith(b"s")]
    for message in messages:
        risen = fields.get(b"s%d" % message.seq)
        if risen is not None:
            message.status = max(message.status, int(risen))
    messages.sort(key=lambda message: message.seq)
    return Snapshot(conversation, int(version), messages)
