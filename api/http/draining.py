"""The API's HTTP server, which ends without refusing a request that a proxy has sent.

A connection that the kernel has taken, or that is open and has brought nothing yet, may have a request on its way.
uvicorn resets the first kind and closes the second when it ends, and a proxy may not send a POST again that it does not
know to be lost. Here the first are taken in, and both get their answer, with which their connection ends
(`BoundedProtocol.shutdown`).
"""

import asyncio
import os
import socket
import sys

from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess


class DrainingServer(Server):
    """uvicorn's server for one process."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._take_in_the_rest()
        await super().shutdown(sockets)

    async def _take_in_the_rest(self) -> None:
        """Accept every connection that waits in the kernel's queue."""
        loop = asyncio.get_running_loop()
        for listening in [each for server in self.servers for each in server.sockets]:
            with socket.socket(fileno=os.dup(listening.fileno())) as queue:
                queue.setblocking(False)
                while True:
                    try:
                        connection, _ = queue.accept()
                    except BlockingIOError:
                        break
                    await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def serve_until_ended(configuration: Config) -> None:
    """Serve in as many processes as the configuration says until a signal ends them. Raises SystemExit where it cannot.

    Several processes share one socket, and the last of them ends with it.
    """
    if configuration.workers > 1:
        Multiprocess(configuration, sockets=[configuration.bind_socket()]).run()
        return
    server = DrainingServer(configuration)
    try:
        server.run()
    except KeyboardInterrupt:  # uvicorn raises the signal again that it ended by
        return
    if not server.started:
        sys.exit(STARTUP_FAILURE)
