"""The devices: each module says what it checks, what suits it, how its sessions are made and what it pins."""

from collections.abc import Mapping

from service.inference.devices.cpu import Cpu
from service.inference.devices.cuda import Cuda
from service.inference.devices.device import Device
from service.inference.devices.openvino import OpenVino
from service.inference.devices.tensorrt import TensorRt

DEVICES: Mapping[str, Device] = {"cpu": Cpu(), "openvino": OpenVino(), "cuda": Cuda(), "tensorrt": TensorRt()}
