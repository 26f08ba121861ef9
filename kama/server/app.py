"""The one place where parts are built and joined: a Node from settings, its routes, and the server around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute

from kama.errors import Busy, CloseCode
from kama.protocol import PROTOCOL_VERSION, SystemFrame, encode
from kama.server import admin, handlers, health
from kama.server.auth import Identity, Role, TokenKeeper
from kama.server.backlog import StoreBacklog
from kama.server.cache import HistoryCache, HistoryReader
from kama.server.chat_server import ChatServer
from kama.server.delivery import Delivery
from kama.server.directory import Directory, LocalDirectory
from kama.server.events import Journal
from kama.server.guard import EXCEPTION_HANDLERS, guarded
from kama.server.kafka.records import NODES
from kama.server.limits import TokenBuckets
from kama.server.membership import Membership
from kama.server.metrics import metrics_registry
from kama.server.parts import make_broker, make_cache_backend, make_stores
from kama.server.peers import Peers
from kama.server.registry import ClientRegistry
from kama.server.retries import Retries
from kama.server.send_queue import ConnLimits
from kama.server.session import Sessions
from kama.server.snowflake import NODE_MAX, Snowflake
from kama.server.status import StatusWriter
from kama.server.store.groups import GroupStore
from kama.server.transport.server_socket import LINGER
from kama.server.watch.node_view import NodeView
from kama.server.watch.routes import Watchers, snapshot, watch
from kama.server.websocket import Socket, retry_reason
from kama.server.write_turn import WriteTurn
from kama.server.ws_gateway import UserConn
from kama.settings import Settings

log = structlog.get_logger("kama.node")

_CLOSE_BATCH = 200
_CLOSE_PAUSE = 0.05
# What is shown as sent within this time is one batch: nobody waits for it but who looks at statuses.
_GATHER = 0.02
# More refused frames than a client with a fault makes; past that it is closed with 4009.
_REFUSALS_PER_SECOND = 20
_REFUSALS_AT_ONCE = 600


class Node:
    """All parts of one node. `start` before the first connection; `drain`, then `close`, at the end."""

    def __init__(self, settings: Settings, tokens: TokenKeeper, name: str) -> None:
        limits = settings.limits
        self.settings = settings
        self.name = settings.node.name or name
        self.draining = False
        self._closed = False
        self.ask_to_stop: Callable[[], None] = lambda: None
        self.tokens = tokens
        self.journal = Journal()
        self.watchers = Watchers()
        self.log, self.database, self.messages, self.progress = make_stores(settings)
        self.groups = GroupStore(self.database)
        self.cache = HistoryCache(make_cache_backend(settings))
        self.history = HistoryReader(self.messages, self.cache, settings.cache.max_messages)
        self.membership = Membership(self.groups.member_ids)
        self.registry = ClientRegistry(
            limits.connections, limits.connections_per_user, limits.multi_login, self.journal
        )
        self.delivery = Delivery(self.registry, self.membership, self.journal)
        self.ids = Snowflake(1)
        self.broker = make_broker(settings, self.name, self.journal)
        self.directory = self._directory()
        self.peers = Peers(self.directory, self.broker, self.registry, self.delivery, self.membership, self.journal)
        self.status = StatusWriter(self.progress, self.cache, self.peers.notify, self.journal, gather=_GATHER)
        self.retries = Retries(self.messages.uuids) if settings.node.mode == "kafka" else None
        self.chat = ChatServer(
            self.broker,
            self.messages,
            self.delivery,
            self.peers,
            self.membership,
            self.cache,
            self.ids,
            TokenBuckets(limits.messages_per_second, limits.burst),
            self.retries,
            file_max_size=limits.file_max_size,
            publish_timeout=limits.publish_timeout,
            journal=self.journal,
        )
        self.sessions = Sessions(
            self.chat,
            self.registry,
            self.directory,
            self.peers,
            self.membership,
            self.messages,
            self.status,
            self.tokens,
            TokenBuckets(_REFUSALS_PER_SECOND, _REFUSALS_AT_ONCE),
            self.journal,
        )
        self._left, self._turn = self.sessions.left, WriteTurn()
        self._backlog = StoreBacklog(self.messages, self.progress, self.status.marked)
        self._conn_limits = ConnLimits(limits.channel_size, limits.send_back_max_bytes, limits.resume_max)
        self._welcome = self._welcome_frame()
        self.view = NodeView(self)
        self.metrics = metrics_registry(self)

    async def start(self) -> None:
        """Raises SettingsError or what the database raises when it cannot be opened."""
        await self.database.open()
        await self.cache.start()
        await self.status.start()
        await self.broker.start()
        self.ids.number(await self.directory.start(self.settings.node.id))
        # The ids above those of nodes have the time of foreign records: no clock of ours.
        numbers = NODES if self.settings.node.mode == "kafka" else NODE_MAX + 1
        self.ids.resume_after(await self.messages.last_uuid(numbers))
        await self.peers.start()
        if self.retries is not None:
            await self.retries.start()
        await self.chat.start()
        await self.view.vitals.start()

    def new_conn(self, socket: Socket, identity: Identity, *, device: str, address: str, post_only: bool) -> UserConn:
        return UserConn(
            id=handlers.new_conn_id(),
            identity=identity,
            socket=socket,
            welcome=self._welcome,
            backlog=self._backlog,
            limits=self._conn_limits,
            sent=self.status.mark_sent,
            closed=self._left,
            device=device,
            address=address,
            post_only=post_only,
            journal=self.journal,
            turn=self._turn,
        )

    def check_open(self) -> None:
        if self.draining:
            raise Busy("the node is shutting down: go to another one, or come back later")

    def _directory(self) -> Directory:
        settings, limits = self.settings, self.settings.limits
        if settings.node.mode == "channel" or not settings.redis.url:
            return LocalDirectory()
        from kama.server.directory_redis import RedisDirectory

        return RedisDirectory(
            settings.redis.url,
            self.name,
            self.registry,
            address=self.name,
            per_user=limits.connections_per_user,
            multi_login=limits.multi_login,
            resync=self._resync,
            sweep=self.broker.sweep,
            renumber=self.ids.number,
            describe=lambda: self.view.announced(),
        )

    async def _resync(self) -> None:
        """Every connection looks for what it may have missed; one after the other, for the store's sake."""
        for conn in self.registry:
            await conn.resync()

    def _welcome_frame(self) -> bytes:
        limits = self.settings.limits
        return encode(
            SystemFrame(
                content="welcome to kama",
                event="welcome",
                node=self.name,
                protocol=PROTOCOL_VERSION,
                limits={
                    "message_size": limits.message_size,
                    "file_max_size": limits.file_max_size,
                    "messages_per_second": limits.messages_per_second,
                    "burst": limits.burst,
                    "resume_max": limits.resume_max,
                },
            )
        )

    async def drain(self) -> None:
        """Take nothing new, store and deliver what was taken, write it out, and send everybody off.

        Connections leave in batches with 1001 and a spread time to come back; all within `drain_timeout`.
        """
        if self.draining:
            return
        self.draining = True
        log.info("draining", connections=len(self.registry))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.server.drain_timeout
        await self.chat.close(timeout=self.settings.server.drain_timeout / 2)
        flushed_by = min(deadline, loop.time() + LINGER)
        while loop.time() < flushed_by and any(conn.depth for conn in self.registry):
            await asyncio.sleep(_CLOSE_PAUSE)
        for number, conn in enumerate(list(self.registry), 1):
            conn.close(CloseCode.GOING_AWAY, retry_reason())
            if number % _CLOSE_BATCH == 0 and loop.time() < deadline:
                await asyncio.sleep(_CLOSE_PAUSE)
        self.watchers.end("shutdown", CloseCode.GOING_AWAY, retry_reason())

    async def close(self) -> None:
        """Commit what is marked and let go of everything. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.draining = True
        await self.view.vitals.close()
        await self.chat.close(timeout=0)
        await self.status.close()
        await self.peers.close()
        if self.retries is not None:
            await self.retries.close()
        await self.directory.close()
        await self.broker.stop()
        await self.cache.close()
        await self.database.close()
        log.info("ended", node=self.name)


def routes() -> Sequence[BaseRoute]:
    look: Sequence[Role] = ("viewer", "admin")
    act: Sequence[Role] = ("admin",)
    group, groups = "/admin/groups/{group_id}", "/admin/groups"
    return [
        WebSocketRoute("/wss", handlers.ws_login),
        WebSocketRoute("/monitor/ws", watch),
        WebSocketRoute("/{path:path}", handlers.ws_not_found),
        Route("/wss", handlers.http_on_wss),
        Route("/monitor/ws", handlers.http_on_wss),
        Route("/monitor/snapshot", guarded(snapshot, *look), methods=["GET"]),
        Route("/user/wsLogout", guarded(handlers.ws_logout), methods=["POST"]),
        Route("/message/send", guarded(handlers.send_message), methods=["POST"]),
        Route("/message/getMessageList", guarded(handlers.pair_history)),
        Route("/message/getGroupMessageList", guarded(handlers.group_history)),
        Route(groups, guarded(admin.list_groups, *look), methods=["GET"]),
        Route(groups, guarded(admin.create_group, *act), methods=["POST"]),
        Route(group, guarded(admin.show_group, *look), methods=["GET"]),
        Route(group, guarded(admin.dissolve_group, *act), methods=["DELETE"]),
        Route(group + "/members", guarded(admin.change_members, *act), methods=["POST"]),
        Route("/admin/nodes", guarded(admin.list_nodes, *look), methods=["GET"]),
        Route("/admin/kick", guarded(admin.kick, *act), methods=["POST"]),
        Route("/admin/drain", guarded(admin.drain, *act), methods=["POST"]),
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", health.metrics),
    ]


def build_app(node: Node) -> Starlette:
    app = Starlette(routes=routes(), exception_handlers=EXCEPTION_HANDLERS)
    app.router.redirect_slashes = False  # a redirect has no envelope, and some clients drop their token on it
    app.state.node = node
    return app
