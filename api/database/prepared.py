"""Fetches rows by prepared statements, for the reads of every request.

psycopg makes a cursor, converts the parameters and registers the socket with the event loop for every statement, which
costs 0.11 to 0.15 ms of processor time more. Here the socket of a connection stays registered, parameters are text, and
a statement is sent by its name.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

Rows = list[tuple[Any, ...]]

_SUCCESS = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


def text_array(values: Iterable[str | None]) -> str:
    """An array as the text of a parameter that the statement casts to `text[]`."""
    quoted = [
        '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text is not None else "NULL" for text in values
    ]
    return "{" + ",".join(quoted) + "}"


async def fetch_with(connection: AsyncConnection[Any], statement: str, parameters: Sequence[str | None]) -> Rows:
    """As `PreparedStatements.fetch`, over a connection that belongs to the caller."""
    async with AsyncRawCursor(connection) as cursor:
        await cursor.execute(statement.encode(), parameters, binary=True)
        return await cursor.fetchall()


class PreparedStatements:
    """Statements over a few connections that are borrowed from a pool for as long as they work.

    One per event loop. Each statement is a transaction of its own, and each connection runs one at a time.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[TupleRow]], connections: int) -> None:
        """connections: the most that are borrowed, so that the pool must have more."""
        self._pool = pool
        self._slots = asyncio.Semaphore(connections)
        self._free: list[_PreparedConnection] = []
        self._returning: set[asyncio.Task[None]] = set()

    async def fetch(self, statement: str, *parameters: str | None) -> Rows:
        """The rows of a statement, with the types that psycopg gives them.

        statement: with `$1`, `$2`, ... for the parameters, which are text that it casts. It stays prepared, so it must
        be a constant of the program.

        Raises PoolTimeout where no connection gets free, and what psycopg raises for statements and connections that
        fail.
        """
        connection = await self._take()
        try:
            return await connection.fetch(statement, parameters)
        finally:
            self._slots.release()
            if connection.is_open:
                self._free.append(connection)

    async def close(self) -> None:
        """Give the connections back."""
        for connection in self._free.copy():
            connection.close()
        if self._returning:
            await asyncio.wait(self._returning)

    async def _take(self) -> "_PreparedConnection":
        try:
            async with asyncio.timeout(self._pool.timeout if self._slots.locked() else None):
                await self._slots.acquire()
        except TimeoutError:
            raise PoolTimeout(f"no connection was free within {self._pool.timeout} s") from None
        if self._free:
            return self._free.pop()
        try:
            return _PreparedConnection(await self._pool.getconn(), self._closed)
        except BaseException:
            self._slots.release()
            raise

    def _closed(self, connection: "_PreparedConnection") -> None:
        if connection in self._free:
            self._free.remove(connection)
        # The pool closes a connection that is broken or in the middle of a statement, and opens another.
        task = asyncio.create_task(self._pool.putconn(connection.borrowed))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)


class _PreparedConnection:
    """A borrowed connection, whose socket is registered with the event loop until `close`."""

    def __init__(self, borrowed: AsyncConnection[TupleRow], closed: Callable[["_PreparedConnection"], None]) -> None:
        self.borrowed = borrowed
        self.is_open = True
        self._on_closed = closed
        self._pgconn = borrowed.pgconn
        self._encoding = borrowed.info.encoding
        self._transformer = Transformer(borrowed)
        self._names: dict[str, bytes] = {}  # of the statements that are prepared
        self._reply: asyncio.Future[PGresult] | None = None
        self._result: PGresult | None = None
        self._writes = False  # whether the event loop is asked when the socket takes more
        self._socket = self._pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    async def fetch(self, statement: str, parameters: Sequence[str | None]) -> Rows:
        values = [None if text is None else self._encoded(text) for text in parameters]
        if (name := self._names.get(statement)) is None:
            name = b"prepared_%d" % len(self._names)
            await self._run(lambda: self._pgconn.send_prepare(name, statement.encode(self._encoding)))
            self._names[statement] = name
        result = await self._run(lambda: self._pgconn.send_query_prepared(name, values, None, Format.BINARY))
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def close(self) -> None:
        """Leave the socket alone and give the connection back."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._on_closed(self)

    def _encoded(self, text: str) -> bytes:
        value = text.encode(self._encoding)
        if b"\0" in value:  # libpq would end the value there
            raise psycopg.DataError("PostgreSQL text cannot contain NUL (0x00) bytes")
        return value

    async def _run(self, send: Callable[[], None]) -> PGresult:
        """Send a command and wait for its result. Raises psycopg.Error where either fails."""
        reply = self._reply = self._loop.create_future()
        try:
            send()
            self._flush()
            result: PGresult = await reply
        except psycopg.Error:
            self.close()
            raise
        except asyncio.CancelledError:  # the late result would be taken for that of the next command
            self.close()
            raise
        finally:
            self._reply = self._result = None
        if result.status in _SUCCESS:
            return result
        if self._pgconn.status != ConnStatus.OK:
            self.close()
        raise error_from_result(result, self._encoding)

    def _flush(self) -> None:
        """Send what the socket takes; the rest when it takes more."""
        try:
            rest = self._pgconn.flush()
        except psycopg.Error as error:
            self._fail(error)
            return
        if rest and not self._writes:
            self._loop.add_writer(self._socket, self._flush)
        elif self._writes and not rest:
            self._loop.remove_writer(self._socket)
        self._writes = bool(rest)

    def _receive(self) -> None:
        try:
            self._pgconn.consume_input()
            if not self._is_complete():
                # An error of the socket is reported once. Where the server's last words came before it, they were read
                # above, and without another read nobody would learn that the connection is gone.
                self._pgconn.consume_input()
                self._is_complete()
        except psycopg.Error as error:
            self._fail(error)

    def _is_complete(self) -> bool:
        """Whether the command is, whose result then goes to `_run`."""
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                if self._reply is not None and self._result is not None and not self._reply.done():
                    self._reply.set_result(self._result)
                return True
            self._result = result
        return False

    def _fail(self, error: psycopg.Error) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        self.close()
