"""Which versions are served. Only the event loop changes it."""

from collections.abc import Iterator
from typing import Literal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.classifier import Classifier
from service.errors import Draining, InvalidParameter, ModelNotFound, Unavailable
from service.inference.decoders import Decoders
from service.inference.traffic import Label, Traffic


class Registry(Collector):
    """The published versions by name and number, and why the other versions are not served."""

    def __init__(self, default_model: str | None, decoders: Decoders) -> None:
        self.failures: dict[tuple[str, int], str] = {}  # 0 is no version: the model's folder can't be read
        self.traffic: dict[str, Traffic] = {}  # by model
        self.phase: Literal["loading", "serving", "draining"] = "loading"
        self.start_failed: str | None = None  # why no model will be served
        self._default_model = default_model
        self._decoders = decoders
        self._models: dict[str, dict[int, Classifier]] = {}
        self._owed: dict[str, float] = {}  # requests to a model's canary, by the share that it has had so far

    def __iter__(self) -> Iterator[Classifier]:
        """Iterate over the published versions, by name."""
        for versions in self._models.values():
            yield from versions.values()

    def publish(self, classifier: Classifier) -> Classifier | None:
        """Publish a version. Return what was published under its name and number before."""
        versions = self._models.setdefault(classifier.name, {})
        replaced, versions[classifier.version] = versions.get(classifier.version), classifier
        self.failures.pop((classifier.name, classifier.version), None)
        return replaced

    def withdraw(self, name: str, version: int) -> Classifier | None:
        """Withdraw a version, and forget that it failed. Return it if it was published.

        Questions that found the version before may go on. Raises ModelNotFound.
        """
        failed = self.failures.pop((name, version), None)
        if version not in self._models.get(name, {}):
            if failed is not None:
                return None
            raise ModelNotFound(f"no version {version} of {name} is served")
        classifier = self._models[name].pop(version)
        if not self._models[name]:
            del self._models[name]
            self._owed.pop(name, None)
        return classifier

    def choose(self, name: str | None, version: int | Label | None = None) -> Classifier:
        """Return the version to ask, as ``find`` does; but of requests that name none, a canary gets its share."""
        found = self.find(name, version)
        traffic, versions = self.traffic.get(found.name, Traffic()), self._models[found.name]
        canary = versions.get(traffic.canary or 0)
        if version is not None or canary is None or canary.unready is not None:
            return found
        owed = self._owed.get(found.name, 0.0) + traffic.canary_share
        self._owed[found.name] = owed - int(owed)
        return canary if owed >= 1 else found

    def find(self, name: str | None, version: int | Label | None = None) -> Classifier:
        """Return a version by its number or label.

        Without either it is the version served by default, and without a name it is of the default model.
        Raises Unavailable, ModelNotFound or InvalidParameter.
        """
        if self.phase != "serving":
            raise (Draining if self.draining else Unavailable)(self._why_not_serving())
        known = sorted({*self._models, *(failed for failed, _ in self.failures)})
        name = name or self._default_model or (known[0] if len(known) == 1 else None)
        if name is None:
            raise InvalidParameter(f"say which model: ?model= one of {', '.join(known)}")
        versions = self._models.get(name, {})
        if isinstance(version, str):
            version = self._labelled(name, version)
        if version is None and versions:
            return versions[self._default(name)]
        if version in versions:
            return versions[version]
        if name not in known:
            raise ModelNotFound(f"no model {name!r}; there is {', '.join(known)}")
        failed = {number: reason for (other, number), reason in self.failures.items() if other == name}
        reason = failed.get(version or max(failed, default=0), failed.get(0))
        if reason is not None:
            raise Unavailable(reason)
        raise ModelNotFound(f"no version {version} of {name}; there is {', '.join(map(str, sorted(versions)))}")

    def _labelled(self, name: str, label: Label) -> int:
        version: int | None = getattr(self.traffic.get(name), label, None)
        if version is None:
            raise ModelNotFound(f"no version of {name} is labelled {label}")
        return version

    def _default(self, name: str) -> int:
        """Return which version answers requests that name none: one that is served, whatever the labels say."""
        versions, traffic = self._models[name], self.traffic.get(name, Traffic())
        if traffic.stable in versions:
            return traffic.stable
        return max(versions, key=lambda number: (number != traffic.canary, number))

    @property
    def draining(self) -> bool:
        """Whether the server takes no new work because it is shutting down."""
        return self.phase == "draining"

    @property
    def unready(self) -> str | None:
        """Why the server is not ready, or None.

        It is ready when every version was loaded or has a predecessor that was, no loaded version is given up, and
        pictures are decoded.
        """
        if self.phase != "serving":
            return self._why_not_serving()
        failed = (
            f"{name}/{version}: {reason}"
            for (name, version), reason in self.failures.items()
            if not any(number <= version or version == 0 for number in self._models.get(name, {}))
        )
        broken = (f"{model!r}: {model.unready}" for model in self if model.unready is not None)
        stuck = filter(None, (self._decoders.stuck,))
        return "; ".join([*failed, *broken, *stuck]) or None

    def _why_not_serving(self) -> str:
        if self.draining:
            return "the server is shutting down"
        return self.start_failed or "the models are being loaded"

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give Prometheus its gauges as they are now."""
        yield GaugeMetricFamily("inferception_ready", "1 if /health/ready says so, else 0", int(self.unready is None))
        version = ["model", "version", "provider"]
        depth = _gauge("queue_depth", "Images admitted and not yet running", ["model"])
        leased = _gauge("queue_bytes", "Decoded bytes leased: waiting, decoding or running", ["model"])
        remembered = _gauge("cache_bytes", "Bytes of memory that remembered answers take", ["model"])
        nodes = _gauge("model_nodes", "Nodes of the graph by provider", version)
        ready = _gauge("model_ready", "1 if the model is offered, else 0", [*version, "precision"])
        for name, versions in self._models.items():
            served = [classifier.served for classifier in versions.values()]
            depth.add_metric([name], sum(len(one.model.queue) for one in served))
            leased.add_metric([name], sum(one.pixels.leased_bytes for one in served))
            remembered.add_metric([name], sum(one.remembered.held_bytes for one in versions.values() if one.remembered))
        for one in self:
            labels, placement = [one.name, str(one.version)], one.placement
            ready.add_metric([*labels, placement.provider, placement.precision], int(one.unready is None))
            for provider, count in placement.nodes.items():
                nodes.add_metric([*labels, provider], count)
        yield from (depth, leased, remembered, nodes, ready)


def _gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"inferception_{name}", text, labels=labels)
