"""The Open Inference Protocol, also known as KServe v2, with Triton's extensions: what HTTP and gRPC share.

https://github.com/kserve/open-inference-protocol and https://github.com/triton-inference-server/server, docs/protocol
"""
