"""A TCP proxy that stands for a long way: what one side sends reaches the other some seconds later."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 65_536


@contextmanager
def slow_proxy(port: int, delay_s: float, spread_s: float, seed: int = 1) -> Iterator[int]:
    """Its own port in front of `port`; each piece takes `delay_s`, give or take `spread_s`, and keeps its order."""
    chance, loop = random.Random(seed), asyncio.new_event_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrives = 0.0
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    writer.close()
                    return
                writer.write(data)

        delivering = asyncio.ensure_future(deliver())
        data = b"."
        while data:
            with suppress(OSError):
                data = await reader.read(_PIECE)
            arrives = max(arrives, loop.time() + chance.uniform(delay_s - spread_s, delay_s + spread_s))
            pieces.put_nowait((arrives, data))
        await delivering

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer), return_exceptions=True)
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    thread = threading.Thread(target=loop.run_forever, name="slow proxy", daemon=True)
    thread.start()  # before anything else: the main thread may have a loop that runs, as a browser's driver leaves one
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(accept, "127.0.0.1", 0), loop).result(5)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)  # so that the transports close
