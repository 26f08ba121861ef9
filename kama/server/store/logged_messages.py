"""LoggedMessages: seqs are given and retries recognised before a message is logged, from memory where it knows."""

from __future__ import annotations

from collections.abc import Sequence

from kama.protocol import build_message, encode
from kama.server.broker import Record, Stored
from kama.server.message_back import MessageBack
from kama.server.store.lately import Lately
from kama.server.store.log_records import MESSAGES, write_messages
from kama.server.store.logged import LoggedDatabase
from kama.server.store.messages import Batch, MessageStore
from kama.server.store.pairs import Pair
from kama.server.transport.ws_frame import text_frame


class LoggedMessages(MessageStore):
    """Numbers and logs what MessageStore would insert. Reads are MessageStore's."""

    def __init__(self, database: LoggedDatabase) -> None:
        super().__init__(database)
        self._logged = database
        self._last_seqs: Lately[str, int] = Lately()
        self._by_uuid: Lately[int, Stored] = Lately()
        self._by_pair: Lately[Pair, Stored] = Lately()

    async def insert_batch(self, records: Sequence[Record]) -> Batch:
        """Once this returns, the batch is in the log. A record whose (sender, client_msg_id) is there already is a
        duplicate. Raises OSError and what the database raises: then nothing was logged."""
        async with self._logged.turn:
            await self._logged.room()
            if unknown := self._unknown(records):
                await self._learn(unknown)
            fresh = _Fresh(self._last_seqs, self._by_pair)
            batch = fresh.take(records)
            if fresh.frames:
                await self._logged.append(MESSAGES, write_messages(fresh.frames), len(fresh.frames))
                self._remember(fresh)
            self._forget()
        return batch

    def _unknown(self, records: Sequence[Record]) -> list[Record]:
        """Those of whose conversation or client_msg_id only the database can tell anything."""
        last_seqs, by_pair = self._last_seqs, self._by_pair
        return [
            record
            for record in records
            if last_seqs[record.key] is None
            or (record.request.client_msg_id is not None and by_pair[_pair(record)] is None)
        ]

    async def _learn(self, records: Sequence[Record]) -> None:
        """All that is not folded yet is in memory: what is folded tells the rest."""
        keys = {record.key for record in records if self._last_seqs[record.key] is None}
        pairs = [_pair(record) for record in records if record.request.client_msg_id is not None]
        seqs, places = await self._logged.look_up.find(keys, pairs)
        self._last_seqs.update((key, seqs.get(key, 0)) for key in keys)
        self._by_pair.update(places)

    def _remember(self, fresh: _Fresh) -> None:
        """Only what is in the log is known: what could not be appended did not happen."""
        self._last_seqs.update(fresh.seqs)
        self._by_pair.update(fresh.pairs)
        self._by_uuid.update(fresh.uuids)

    def _forget(self) -> None:
        """What the database has, and nobody needed lately. What only came again was learned, and is as much."""
        end, folded = self._logged.log.end, self._logged.folder.folded
        for lately in (self._last_seqs, self._by_pair, self._by_uuid):
            lately.turn_over(end, folded)

    async def place(self, uuid: int) -> Stored | None:
        return self._by_uuid[uuid] or await super().place(uuid)


class _Fresh:
    """What of a batch is to be logged, and what is to be known once it is."""

    def __init__(self, last_seqs: Lately[str, int], by_pair: Lately[Pair, Stored]) -> None:
        self._last_seqs = last_seqs
        self._by_pair = by_pair
        self.frames: list[bytes] = []
        self.seqs: dict[str, int] = {}
        self.uuids: dict[int, Stored] = {}
        self.pairs: dict[Pair, Stored] = {}

    def take(self, records: Sequence[Record]) -> Batch:
        outcomes: list[Stored] = []
        backs: list[MessageBack | None] = []
        seqs, last_seqs, uuids, frames = self.seqs, self._last_seqs, self.uuids, self.frames
        for record in records:
            key, uuid, request = record.key, record.uuid, record.request
            has_client_id = request.client_msg_id is not None
            first = self._first(record) if has_client_id else None
            if first is not None:
                outcomes.append(Stored(first.uuid, first.conversation, first.seq, duplicate=True))
                backs.append(None)
                continue
            seq = seqs[key] = (seqs.get(key) or last_seqs[key] or 0) + 1
            stored = uuids[uuid] = Stored(uuid, key, seq)
            if has_client_id:
                self.pairs[_pair(record)] = stored
            sender, receiver, at = request.send_id, request.receive_id, record.accepted_ms
            frame = encode(build_message(request, uuid, seq, at))
            made = text_frame(frame)
            frames.append(frame)
            outcomes.append(stored)
            backs.append(
                MessageBack(frame, made, uuid, key, seq, sender, receiver, request.type, at, has_client_id, live=True)
            )
        return Batch(outcomes, backs)

    def _first(self, record: Record) -> Stored | None:
        pair = _pair(record)
        return self.pairs.get(pair) or self._by_pair[pair]


def _pair(record: Record) -> Pair:
    """Of a record that has a client_msg_id."""
    return record.request.send_id, record.request.client_msg_id or ""
