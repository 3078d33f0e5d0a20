"""gRPC's server, beside HTTP's in the same event loop."""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from service.errors import StartupError
from service.grpc.calls import Method
from service.grpc.rpcs import RPCS
from service.runtime import Runtime


@asynccontextmanager
async def serving(runtime: Runtime) -> AsyncIterator[int]:
    """Answer gRPC while the block runs, which gets the port. At its end, refuse new calls and finish the others.

    Raises StartupError if the address cannot be used.
    """
    settings = runtime.settings
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    options = {
        "grpc.max_receive_message_length": settings.max_body_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": 0,  # else two servers would share the port without a word
        "grpc.max_allowed_incoming_connections": min(settings.max_connections, files // 8),
        "grpc.server_handshake_timeout_ms": 2 * settings.body_timeout_ms,
        "grpc.max_connection_idle_ms": settings.max_timeout_ms,
    }
    # As many calls again as the queue holds images: for those that are read, refused, or ask for health.
    server = grpc.aio.server(options=list(options.items()), maximum_concurrent_rpcs=2 * settings.max_queue_size)
    methods = list[Method]()
    for service, rpcs in RPCS.items():
        answering = {name: Method(f"/{service}/{name}", rpc, runtime) for name, rpc in rpcs.items()}
        handlers = {name: _handler(method) for name, method in answering.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        methods += answering.values()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError:
        raise StartupError(f"gRPC cannot listen on {host} port {settings.grpc_port}: is the port in use?") from None
    await server.start()
    try:
        yield port
    finally:
        for method in methods:
            method.stop_reading()
        await server.stop(settings.max_timeout_ms / 1e3)


def _handler(method: Method) -> Any:
    """Return what gRPC calls. As far as gRPC knows, each call streams its message, so the server says when it comes."""
    if method.rpc.is_stream:
        return grpc.stream_stream_rpc_method_handler(method.stream)
    return grpc.stream_unary_rpc_method_handler(method.unary)
