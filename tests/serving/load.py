"""A load generator in a process of its own: `python load.py PORT KEPT FRESH BODY`, until its standard input ends.

KEPT clients keep their connection, FRESH ones open one for each request. Between two requests a client waits for a
moment, so that connections are also idle at times. Prints {"requests": n, "failures": [...]}.
"""

import asyncio
import json
import random
import sys

PAUSE_SECONDS = 1.0


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
    """One request and its answer; whether the connection may be used again. Raises where the answer is not 200."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"http/1.1 200"):
        raise ValueError(f"{head!r} {body!r}")
    return b"connection: close" not in head


async def client(port: int, body: bytes, *, keep: bool, result: dict[str, list[str] | int], end: asyncio.Event) -> None:
    """Ask again and again."""
    close = b"" if keep else b"connection: close\r\n"
    request = b"POST /predict HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n%s" % (close, len(body), body)
    writer = None
    while not end.is_set():
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            usable = await asyncio.wait_for(exchange(reader, writer, request), 60)
            result["requests"] += 1  # type: ignore[operator]
        except Exception as error:
            result["failures"].append(repr(error))  # type: ignore[union-attr]
            usable = False
        if not usable and writer is not None:
            writer.close()
            writer = None
        await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
    if writer is not None:
        writer.close()


async def main() -> None:
    """Run all clients until standard input ends."""
    port, kept, fresh, body = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
    result: dict[str, list[str] | int] = {"requests": 0, "failures": []}
    end = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), end.set)  # readable only once it has ended
    await asyncio.gather(
        *(client(port, body, keep=True, result=result, end=end) for _ in range(kept)),
        *(client(port, body, keep=False, result=result, end=end) for _ in range(fresh)),
    )
    print(json.dumps(result))  # noqa: T201


asyncio.run(main())
