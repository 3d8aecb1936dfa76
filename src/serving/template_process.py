"""The parent's side of a template, the process that workers are forked from (its own side is template.py)."""

import asyncio
import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL

from .desired import ApplyFailed, Desired
from .processes import MEMORY_LIMIT, clean_environment, kill_group, worker_environment
from .server_log import Write
from .worker_process import TAIL_LINES, Worker, described, open_pair, read_lines


class Template:
    """Made by `start`; `ended` is done when the process is gone."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = process
        self._control = control
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._codes: dict[int, asyncio.Future[int]] = {}
        self._following: asyncio.Future[None] | None = None
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @staticmethod
    async def start(desired: Desired, environment: Mapping[str, str], write: Write) -> "Template":
        """Start it and wait until it has imported what the model needs. Raises ApplyFailed."""
        reader, writer, theirs = await open_pair()
        output, inherited = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(desired.python, "-m", "asgard_server", "--template-fd", str(theirs.fileno()), desired.bundle),
                env=worker_environment(
                    clean_environment(os.environ), environment, desired.bundle, desired.cpu_limit_millicores
                )
                | {MEMORY_LIMIT: str(desired.memory_limit_bytes)},
                stdin=DEVNULL,
                stdout=inherited,
                stderr=inherited,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            writer.close()
            os.close(output)
            raise ApplyFailed("Crashed", f"{desired.python} cannot be started: {error.strerror}.") from error
        finally:
            theirs.close()
            os.close(inherited)
        control = socket.socket(
            fileno=os.dup(writer.get_extra_info("socket").fileno())
        )  # streams cannot send descriptors
        template = Template(process, control)
        template._following = asyncio.ensure_future(template._follow(reader, writer, output, write))
        try:
            await asyncio.shield(template._answer)
        except BaseException:
            template.kill()
            raise
        return template

    async def fork(self, listeners: Sequence[socket.socket], write: Write) -> Worker:
        """A new worker, not yet healthy, and its `follow` under way. Raises ApplyFailed where the template ends."""
        self._answer = asyncio.get_running_loop().create_future()
        reader, writer, theirs = await open_pair()
        output, inherited = os.pipe()
        try:
            # One byte for all the descriptors: it fits in the socket's buffer, so this does not block.
            descriptors = [theirs.fileno(), inherited, *(listener.fileno() for listener in listeners)]
            socket.send_fds(self._control, [b"f"], descriptors)
            pid = await self._answer
        except OSError as error:
            writer.close()
            os.close(output)
            raise self._failure() from error
        except BaseException:
            writer.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(inherited)
        worker = Worker(pid, reader, writer, self._code(pid))
        worker.following = asyncio.ensure_future(worker.follow(output, write))
        return worker

    def kill(self) -> None:
        """End it at once; workers that it forked live on."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _follow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, output: int, write: Write
    ) -> None:
        def line(text: str) -> None:
            self._tail.append(text)
            write(self._process.pid, text)

        printed = asyncio.ensure_future(read_lines(output, line))
        with contextlib.suppress(OSError):
            while text := await reader.readline():
                event = json.loads(text)
                if event["event"] == "exited":
                    self._code(event["pid"]).set_result(event["code"])
                elif not self._answer.done():
                    self._answer.set_result(event.get("pid", 0))
        writer.close()
        self._control.close()
        await self._process.wait()
        kill_group(self._process.pid)
        await asyncio.wait({printed}, timeout=1)
        printed.cancel()
        if not self._answer.done():
            self._answer.set_exception(self._failure())
            self._answer.exception()
        self.ended.set_result(None)

    def _code(self, pid: int) -> asyncio.Future[int]:
        return self._codes.setdefault(pid, asyncio.get_running_loop().create_future())

    def _failure(self) -> ApplyFailed:
        how = "ends" if self._process.returncode is None else described(self._process.returncode)
        return ApplyFailed("Crashed", f"The process that workers are started from {how}.", self._tail)
