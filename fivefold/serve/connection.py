"""One connection: uvicorn's, with an end to its patience. It would wait for ever for a request's head, and for a reader."""

from __future__ import annotations

import asyncio
import socket

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

UNREAD_SECONDS = 60
"""Time for a client to take more of an answer; after it the kernel closes the connection (on Linux)."""

LAST_CALL_SECONDS = 0.5
"""Time that idle connections have when the server ends."""


class Connection(H11Protocol):
    """A connection where a request's head has `head_seconds` to arrive, counted from its first byte or, on a new
    connection, from the beginning. Between requests uvicorn's keep-alive time holds, as ever.
    """

    def __init__(
        self,
        head_seconds: float,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_seconds = head_seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time of the first head begins."""
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT") and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
        self._keep_time()

    def data_received(self, data: bytes) -> None:
        """The time of a head begins or ends."""
        super().data_received(data)
        self._keep_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        super().connection_lost(exc)
        self._stop_time()

    def shutdown(self) -> None:
        """The server ends. On an idle connection a request may be on its way: it is answered, if only with a refusal, while
        a close at once would look like a failure to its client, who cannot know whether it was worked on.
        """
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_CALL_SECONDS, self._end)
        else:
            super().shutdown()

    def _end(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _keep_time(self) -> None:
        """The clock runs while no request is being answered, also where a refused one still sends its body. When that has
        ended it is uvicorn's keep-alive time again, which uvicorn itself begins with answers only.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_time()
        elif self._between_requests():
            self._stop_time()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._head_seconds, self.transport.close)

    def _between_requests(self) -> bool:
        """Whether one request is over, its body too, and nothing of another has come."""
        over = self.cycle is not None and self.conn.our_state is self.conn.their_state  # both may begin the next
        return over and not self.conn.trailing_data[0]

    def _stop_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
