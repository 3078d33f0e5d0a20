"""The gRPC door: the Open Inference Protocol's service ``inference.GRPCInferenceService``, and health checks.

https://github.com/kserve/open-inference-protocol and https://github.com/triton-inference-server/common, protobuf
"""
