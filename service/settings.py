"""Every setting, its default and its bounds. Built once, in ``__main__``."""

import inspect
import ipaddress
import math
import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.cgroup import cpu_quota


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity mask, or its control groups' quota if that is smaller.

    ``os.cpu_count()`` would give the host's, and a pool sized by it thrashes inside a container.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, cpu_quota())))


def _user_cache() -> Path:
    """Return where this user's programs keep what they can make again (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "inferception"


class _Group(BaseSettings):
    """A group of options in ``--help``."""

    title: ClassVar[str]

    model_config = SettingsConfigDict(
        env_prefix="INFERCEPTION_", env_ignore_empty=True, cli_kebab_case=True, frozen=True, extra="forbid"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_is_empty(cls, value: object) -> object:
        if value == "":
            raise ValueError("must not be empty")
        return value


class _Models(_Group):
    title = "most important"

    model_repository: Path = Field(Path("model_repository"), description="folder of exported models")
    default_model: str | None = Field(None, description="model for requests that name none; needed with several models")
    device: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = Field(
        "auto",
        description="where models run; auto takes CUDA if CUDA runs the model, else the faster of OpenVINO and cpu",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="precision of models; auto takes the fastest that suits the device, as measured at start"
    )
    max_batch_size: int = Field(6, ge=1, le=256, description="images in the largest batch")
    max_queue_size: int = Field(64, ge=1, description="images of one version that are admitted and do not run yet")


class _Address(_Group):
    title = _Models.title

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free port")


class _Devices(_Group):
    title = "devices and decoding"

    threads: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="threads that infer on the CPU; one for each CPU allowed if left out",
    )
    decoders: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="processes that decode ordinary pictures; one for each CPU allowed if left out",
    )
    decode: Literal["exact", "fast"] = Field(
        "fast", description="exact decodes every pixel; fast decodes large JPEGs at a fraction of their size"
    )
    formats: str = Field(
        "JPEG,PNG,WEBP,GIF,BMP,TIFF,AVIF",
        pattern=r"^(JPEG|PNG|WEBP|GIF|BMP|TIFF|AVIF)(,(JPEG|PNG|WEBP|GIF|BMP|TIFF|AVIF))*$",
        description="formats of pictures that are read, as JPEG,PNG",
    )
    max_pixels: int = Field(50_000_000, ge=1, le=89_478_485, description="pixels of the largest picture")
    decode_memory_mb: int = Field(
        1024, ge=512, description="MB that the decoder of unusual pictures may take; the others take a quarter each"
    )
    cache: Path = Field(
        default_factory=_user_cache,
        description="folder for what a start compiled and measured; ~/.cache/inferception if left out",
    )
    device_ids: str = Field(
        "0",
        pattern=r"^(0|[1-9]\d*)(,(0|[1-9]\d*))*$",
        description="numbers of the GPUs to use, as 0,1; several need device=cuda or tensorrt",
    )
    tf32: bool = Field(False, description="true lets GPUs round fp32 products to 10 bits, which is faster")
    cuda_graphs: bool = Field(False, description="true launches a batch as one CUDA graph; needs device=cuda")
    gpu_memory_limit_mb: int | None = Field(
        None, ge=1, description="MB of memory that one model may take on one GPU; no limit if left out"
    )


class _Logs(_Group):
    title = "the server"

    log_format: Literal["text", "json"] = Field("text", description="form of the log lines")


class _Server(_Group):
    title = _Logs.title

    api_keys: Path | None = Field(None, description="TOML file of API keys; nobody needs a key if left out")
    keep_versions: int = Field(
        1, ge=1, description="versions of each model that are served beside labelled ones, the highest"
    )
    admin_api: bool = Field(
        False, description="true lets clients load, unload and label models; with api_keys, administrators alone"
    )
    repository: Literal["poll", "explicit", "fixed"] = Field(
        "poll",
        description="poll serves new versions and drops removed ones; explicit waits for clients that say so; fixed "
        "serves what was there at the start",
    )
    poll_interval_ms: int = Field(5_000, ge=1, description="ms between looks at the model repository")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port to listen on for gRPC; 0 takes a free port; no gRPC if left out"
    )
    max_connections: int = Field(1024, ge=1, description="open connections; one more is answered 503 and closed")
    drain_grace_ms: int = Field(
        1_000, ge=0, description="ms after SIGTERM in which new work is answered 503, while load balancers notice"
    )
    cache_bytes: int = Field(
        0, ge=0, description="bytes of answers that each version remembers, for images that come again; 0 for none"
    )
    probe_interval_ms: int = Field(5_000, ge=1, description="ms between trials of a model that keeps failing")
    root_path: str | None = Field(
        None, pattern=r"^(/[A-Za-z0-9._~-]+)+$", description="path prefix that a proxy removes"
    )
    trusted_proxies: str | None = Field(
        None, description="proxies whose X-Forwarded-For and -Proto count, as 10.0.0.0/8,127.0.0.1; none if left out"
    )
    cors_origins: str | None = Field(
        None,
        pattern=r"^(\*|https?://[^/\s,]+(,https?://[^/\s,]+)*)$",
        description="web pages that browsers let ask, as https://a.example,https://b.example, or *; none if left out",
    )

    @field_validator("repository")
    @classmethod
    def _explicit_waits_for_somebody(cls, repository: str, info: ValidationInfo) -> str:
        if repository == "explicit" and not info.data.get("admin_api"):
            raise ValueError("explicit needs admin_api=true, or nobody could load a model")
        return repository

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, trusted_proxies: str | None) -> str | None:
        for proxy in trusted_proxies.split(",") if trusted_proxies else []:
            ipaddress.ip_network(proxy.strip())  # uvicorn would take what is none for a name, which no client has
        return trusted_proxies


class _Requests(_Group):
    title = "requests"

    default_timeout_ms: int = Field(10_000, ge=1, description="deadline in ms of a request that sets none")
    max_timeout_ms: int = Field(
        60_000, ge=1, description="longest deadline in ms; a longer one that a request sets is cut to this"
    )
    max_wait_ms: int = Field(
        1_000,
        ge=1,
        description="ms in which a request without a deadline must be answered, or it is refused",
    )
    body_timeout_ms: int = Field(5_000, ge=1, description="ms in which some more of a body must arrive")
    min_body_rate: int = Field(8_000, ge=1, description="bytes a second of a body, on average after body_timeout_ms")
    max_body_bytes: int = Field(20_000_000, ge=1, description="bytes of the largest body")
    max_body_bytes_in_flight: int = Field(256_000_000, ge=1, description="bytes of bodies held at a time, in all")
    max_files: int = Field(32, ge=1, description="files in one multipart request")


class ModelSettings(_Logs, _Devices, _Models):
    """What loading a model needs. Each setting is also the environment variable ``INFERCEPTION_<NAME>``."""

    @field_validator("device_ids")
    @classmethod
    def _several_gpus_are_named(cls, device_ids: str, info: ValidationInfo) -> str:
        if "," in device_ids and info.data.get("device") not in ("cuda", "tensorrt"):
            raise ValueError("several GPUs need device=cuda or device=tensorrt")
        if len(set(numbers := device_ids.split(","))) < len(numbers):
            raise ValueError("a GPU is named twice")
        return device_ids

    @field_validator("precision")
    @classmethod
    def _bfloat16_needs_openvino(cls, precision: str, info: ValidationInfo) -> str:
        if precision == "bf16" and info.data.get("device") != "openvino":
            raise ValueError("bf16 needs device=openvino")
        return precision

    @field_validator("device_ids", "tf32", "gpu_memory_limit_mb")
    @classmethod
    def _gpus_have_settings_of_their_own(cls, value: object, info: ValidationInfo) -> object:
        if value != cls.model_fields[str(info.field_name)].default and info.data.get("device") in ("cpu", "openvino"):
            raise ValueError("only GPUs have this setting: it needs device=auto, cuda or tensorrt")
        return value

    @field_validator("cuda_graphs")
    @classmethod
    def _cuda_graphs_need_cuda(cls, cuda_graphs: bool, info: ValidationInfo) -> bool:
        if cuda_graphs and info.data.get("device") != "cuda":
            raise ValueError("CUDA graphs need device=cuda")
        return cuda_graphs

    @property
    def batch_sizes(self) -> list[int]:
        """The fixed batch sizes: the largest, halved again and again, down to one."""
        return [self.max_batch_size >> i for i in range(self.max_batch_size.bit_length())]

    def cache_folder(self, name: str) -> Path | None:
        """Return a folder in the cache, made if need be; None if it can't be written to, as in a container."""
        try:
            folder = self.cache.expanduser() / name
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # the latter where this user has no home
            return None
        return folder if os.access(folder, os.W_OK) else None

    @property
    def gpus(self) -> list[int]:
        """The numbers of the GPUs to use."""
        return [int(number) for number in self.device_ids.split(",")]


class Settings(_Requests, _Server, _Address, ModelSettings):
    """All settings of the server."""


def group_of(setting: str) -> str:
    """Return the title of the group that a setting belongs to."""
    groups = (kind for kind in Settings.__mro__ if issubclass(kind, _Group))
    return next(group.title for group in groups if setting in inspect.get_annotations(group))
