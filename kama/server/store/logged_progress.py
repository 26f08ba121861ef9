"""LoggedProgress: logs what ProgressStore would write. Which messages a receipt has raised, the folder tells."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import repeat

from kama.protocol import MessageStatus
from kama.server.store.lately import Lately
from kama.server.store.log_records import PROGRESS, Rise, write_progress
from kama.server.store.logged import LoggedDatabase
from kama.server.store.progress import Position, Progress, ProgressStore, StatusChange


class LoggedProgress(ProgressStore):
    def __init__(self, database: LoggedDatabase) -> None:
        super().__init__(database)
        self._logged = database
        self._sent: Lately[int, bool] = Lately()

    async def positions(self, user_id: str) -> list[Position]:
        await self._logged.catch_up()
        return [Position(*found) for found in await self._logged.look_up.positions(user_id)]

    def positions_now(self, user_id: str) -> list[Position] | None:
        found = self._logged.look_up.positions_now(user_id) if self._logged.is_caught_up else None
        return None if found is None else [Position(*position) for position in found]

    async def apply(self, progress: Progress) -> tuple[list[StatusChange], Mapping[str, int]]:
        # A copy that was read back from the store does not know what has become of the message since.
        risen = {change.uuid: change for change in progress.sent}
        for uuid in self._sent.known(risen):
            del risen[uuid]
        record = write_progress(
            risen, progress.cursors, progress.receipts, progress.pushed, time.time_ns() // 1_000_000
        )
        async with self._logged.turn:
            end = await self._logged.append(PROGRESS, record, 0)
        self._sent.update(zip(risen, repeat(True)))
        changes = list(risen.values())
        if progress.receipts:
            rises = await self._logged.folder.rises(end)
            self._sent.update((rise.uuid, True) for rise in rises)
            changes += map(_change, rises)
        self._sent.turn_over(end, self._logged.folder.folded)
        return changes, {}


def _change(rise: Rise) -> StatusChange:
    return StatusChange(
        *(rise.uuid, rise.conversation, rise.seq, rise.send_id, rise.has_client_id),
        *(MessageStatus(rise.status), rise.user_id),
    )
