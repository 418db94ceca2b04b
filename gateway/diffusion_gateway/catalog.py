"""The pipelines that requests may name, as their servers described them last."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from diffusion_gateway.ensembles import Pipeline
from diffusion_gateway.errors import ApiError, unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusion_gateway.metrics import Metrics
    from diffusion_gateway.triton import TritonServer

_LOG = logging.getLogger(__name__)


class Catalog:
    """What the servers serve.

    Args:
        servers: one for each pipeline.
        metrics: that count the ensembles.
    """

    def __init__(self, servers: Sequence[TritonServer], metrics: Metrics) -> None:
        self.servers: Mapping[str, TritonServer] = {server.name: server for server in servers}
        self.pipelines: dict[str, Pipeline] = {name: Pipeline(name) for name in self.servers}
        self._metrics = metrics

    @property
    def is_ready(self) -> bool:
        """Whether a pipeline has been seen."""
        return any(pipeline.ensembles for pipeline in self.pipelines.values())

    @property
    def only_name(self) -> str | None:
        """Name of the pipeline where there is one only."""
        return next(iter(self.pipelines)) if len(self.pipelines) == 1 else None

    async def refresh(self) -> None:
        """Ask every server again; one that does not answer keeps what it had."""
        for name, server in self.servers.items():
            try:
                pipeline = await server.discover()
            except ApiError as error:
                _LOG.warning("%s", error.message)
                continue
            if pipeline != self.pipelines[name]:
                _LOG.info("the model %s has %d ensembles", name, len(pipeline.ensembles))
            self.pipelines[name] = pipeline
            self._metrics.ensembles.labels(name).set(len(pipeline.ensembles))

    def find(self, name: str | None) -> Pipeline:
        """The pipeline that a request names, or the only one.

        Raises:
            ApiError: there is none, or it has not been seen yet.
        """
        names = ", ".join(self.pipelines)
        if name is None and len(self.pipelines) > 1:
            raise ApiError(f"model is missing: send {names}", "model", code="missing_required_parameter")
        pipeline = self.pipelines.get(name or names)
        if pipeline is None:
            message = f"the model {name!r} does not exist: send {names}"
            raise ApiError(message, "model", status=HTTPStatus.NOT_FOUND, code="model_not_found")
        if not pipeline.ensembles:
            raise unavailable(f"the model {pipeline.name} has not started yet: send it again later")
        return pipeline
