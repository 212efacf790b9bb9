"""What an embedded Triton is started with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from immich_triton.server.preflight import Port, reachable
from immich_triton.server.triton_install import ONNXRUNTIME_BACKEND


@dataclass(frozen=True)
class TritonSettings:
    """Where and what to run.

    ``run_dir`` belongs to one server: its log, pid file and backend directory. ``hang_seconds``: a server that answers
    nothing for so long, not even whether it is live, is ended and started again. ``hung_seconds``: a model's process
    that is stopped for so long is ended and its model loaded again. ``leave_seconds``: what served the model before
    then has so long for requests in flight. ``gpu``: networks run on a GPU, so that pipelines get more processes.
    ``metrics_host``: where the metrics listen, as the server does when empty.
    """

    models: Path
    http_port: int
    metrics_port: int
    run_dir: Path
    shared_memory_mib: int = 256
    onnxruntime_backend: Path = ONNXRUNTIME_BACKEND
    only_routed: bool = False
    gpu: bool = False
    host: str = "127.0.0.1"
    metrics_host: str = ""
    key: str = field(default="", repr=False)
    hang_seconds: float = 60.0
    hung_seconds: float = 10.0
    leave_seconds: float = 30.0
    port_remedy: str = "choose others with --http-port and --metrics-port"

    @property
    def url(self) -> str:
        """The address of Triton's HTTP endpoint, without a trailing slash."""
        return f"http://{reachable(self.host)}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """The address of Triton's metrics."""
        return f"http://{reachable(self.metrics_host or self.host)}:{self.metrics_port}/metrics"

    @property
    def ports(self) -> list[Port]:
        """What it listens on."""
        return [
            Port(self.http_port, "Triton", self.port_remedy, self.host),
            Port(self.metrics_port, "Triton's metrics", self.port_remedy, self.metrics_host or self.host),
        ]

    @property
    def shm_prefix(self) -> str:
        """What the names of this server's shared memory begin with; no other run directory has the same."""
        return f"immich_triton_{self.http_port}_{hashlib.sha256(bytes(self.run_dir)).hexdigest()[:8]}_"
