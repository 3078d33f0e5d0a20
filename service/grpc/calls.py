"""What goes round every request: its key, its reading, its bounds, its metrics, its log line, its error.

The rules:
- A request is a call, or one message of a stream. It arrives when its whole message is there.
- A client without a key is refused before the server takes a message from it.
- A client has ``max_timeout_ms`` to send its next message, and as long to take an answer of a stream.
- A stream outlives a wrong request. It ends when the server drains, so that its client goes elsewhere.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from service import tracing
from service.access import Trace, request_id
from service.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    InvalidParameter,
    QueueFull,
    ServiceError,
    Unavailable,
)
from service.grpc import inference_pb2 as pb
from service.grpc import messages
from service.grpc.rpcs import Call, Rpc
from service.grpc.status import code_of, metadata_of, text_of
from service.runtime import Runtime

log = logging.getLogger("inferception")


@contextmanager
def _told() -> Iterator[None]:
    """Raise a ServiceError for whatever else the block raises: the traceback is for the server's log alone."""
    try:
        yield
    except ServiceError:
        raise
    except MemoryError:
        raise Unavailable("the server has no memory left") from None
    except Exception:
        log.exception("an unexpected error")
        raise InferenceFailed("unexpected error; the server's log has more") from None


async def _refuse(call: Call, error: ServiceError) -> None:
    """End a call or a stream. Raises what gRPC wants to see raised."""
    metadata = (("x-request-id", call.trace.request_id), *metadata_of(error))
    await call.context.abort(code_of(error), text_of(error), metadata)


@dataclass(frozen=True)
class Method:
    """Answers the calls of one RPC, whose full name is ``path``."""

    path: str
    rpc: Rpc
    runtime: Runtime
    _reading: set[asyncio.Timeout] = field(default_factory=set)

    async def unary(self, _: object, context: Any) -> bytes:
        """Answer one call."""
        call = self._call(context)
        try:
            answer = await self._exchange(call)
            if answer is None:
                raise InvalidParameter("the call has no request")
        except ServiceError as error:
            await _refuse(call, error)
            raise
        serialized: bytes = answer.SerializeToString()
        return serialized

    async def stream(self, _: object, context: Any) -> None:
        """Answer the messages of one stream in turn."""
        call = self._call(context)
        try:
            while (answer := await self._answer_in_stream(call)) is not None:
                async with self._patience():
                    await context.write(answer.SerializeToString())
                call = self._call(context)
        except ServiceError as error:
            await _refuse(call, error)

    async def _answer_in_stream(self, call: Call) -> Message | None:
        try:
            return await self._exchange(call)
        except ServiceError as error:
            if call.request is None or self.runtime.registry.draining:
                raise
            named = pb.ModelInferResponse(id=call.request.id)
            return pb.ModelStreamInferResponse(error_message=text_of(error), infer_response=named)

    def stop_reading(self) -> None:
        """End the calls and the streams whose next message is still to come."""
        for patience in self._reading:
            patience.reschedule(0)

    def _call(self, context: Any) -> Call:
        metadata = {name: str(value) for name, value in context.invocation_metadata()}
        trace = Trace(request_id(metadata.get("x-request-id", "")))
        context.set_trailing_metadata((("x-request-id", trace.request_id),))
        return Call(self.runtime, context, metadata, trace)

    async def _exchange(self, call: Call) -> Message | None:
        """Read a request and answer it. Return None if the client sends no more. Raises ServiceError alone."""
        with self._observed(call), _told():
            keys = None if self.rpc.for_anyone else self.runtime.keys
            if keys is not None:
                keys.identify(call.trace, call.metadata)
            raw = await self._read(call)
            if raw is grpc.aio.EOF:
                return None
            call.request, call.trace.arrived = self.rpc.request(), time.perf_counter()
            if keys is not None:
                keys.count(call.trace)
            with tracing.request(self.path, call.metadata), self._held(len(raw)):
                call.request = messages.parse(self.rpc.request, raw)
                return await self.rpc.answer(call, call.request)

    @contextmanager
    def _observed(self, call: Call) -> Iterator[None]:
        """Count and log a request, unless the client had none."""
        status = grpc.StatusCode.CANCELLED
        try:
            yield
            status = grpc.StatusCode.OK
        except ServiceError as error:
            status = code_of(error)
            raise
        finally:
            if call.request is not None or status is not grpc.StatusCode.OK:
                call.trace.finished("total")
                call.trace.count(self.runtime.metrics, self.path, status.name, by_key=self.runtime.keys is not None)
                level = logging.DEBUG if self.rpc.for_anyone else logging.INFO
                call.trace.log(level, "GRPC", self.path, status.name)

    async def _read(self, call: Call) -> Any:
        """Return the next message as bytes, or EOF."""
        if self.rpc.is_stream and self.runtime.registry.draining:
            raise Draining("the server is shutting down")
        async with self._patience() as patience:
            self._reading.add(patience)
            try:
                return await call.context.read()
            finally:
                self._reading.discard(patience)

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[asyncio.Timeout]:
        """Bound how long the block waits for the client. Raises Draining or DeadlineExceeded."""
        seconds = self.runtime.settings.max_timeout_ms / 1e3
        try:
            async with asyncio.timeout(seconds) as patience:
                yield patience
        except TimeoutError:
            if self.runtime.registry.draining:
                raise Draining("the server is shutting down") from None
            raise DeadlineExceeded(f"the client sent nothing, or took nothing, for {seconds:g} s") from None

    @contextmanager
    def _held(self, size: int) -> Iterator[None]:
        """Count the bytes of a message among those of bodies. Raises QueueFull."""
        budget = self.runtime.body_bytes
        if not budget.try_take(size):
            raise QueueFull(f"{budget.held} bytes of bodies are in flight", retry_after=1.0)
        try:
            yield
        finally:
            budget.give_back(size)
