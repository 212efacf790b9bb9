"""A running `immich-triton run`: the supervisor with its gateway, its Triton and, if asked for, its site."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.ports import free_ports
from harness.program import Program


@dataclass
class Supervised:
    """Where its parts listen, and the files that name their processes."""

    program: Program
    run_dir: Path
    url: str
    triton_url: str

    @classmethod
    def start(cls, models: Path, run_dir: Path, *arguments: object) -> Supervised:
        """Start one on free ports, without waiting for it; nobody listens upstream. Later *arguments* win."""
        port, metrics, triton, triton_metrics, upstream = free_ports(5)
        every = {
            "port": port,
            "metrics-port": metrics,
            "triton-http-port": triton,
            "triton-metrics-port": triton_metrics,
            "upstream": f"http://127.0.0.1:{upstream}",
            "models": models,
            "run-dir": run_dir,
            "options": f"--set immich_state_dir={run_dir / 'state'} --set immich_query_deadline=7",
        }
        line = [f"--{name}={value}" for name, value in every.items()]
        program = Program.start("run", [*line, *arguments], run_dir / "console.log")
        return cls(program, run_dir, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{triton}")

    def pid(self, name: str) -> int:
        """Return the process that the file *name* in its run folder names. Raises OSError when there is none."""
        return int((self.run_dir / name).read_text())

    @property
    def gateway_pid(self) -> int:
        return self.pid("gateway.pid")

    @property
    def triton_pid(self) -> int:
        return self.pid("triton/triton.pid")

    def up(self) -> bool:
        """Whether it said that all its parts run."""
        return "immich-triton is up" in self.program.console
