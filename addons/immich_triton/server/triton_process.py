"""The embedded Triton as a process: start, follow, start again when it dies, stop without leaving anything behind."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import time
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from immich_triton.core import loopback
from immich_triton.core.loopback import is_loopback
from immich_triton.server import die_with_parent, pipeline_processes, preflight, triton_install, triton_log
from immich_triton.server.back_off import BackOff
from immich_triton.server.idle import Idle
from immich_triton.server.model_care import Caretaker
from immich_triton.server.own_time import OwnTime
from immich_triton.server.pid_file import PidFile, kill_session
from immich_triton.server.preflight import StartError
from immich_triton.server.processes import how_it_ended
from immich_triton.server.triton_control import ModelControl
from immich_triton.server.triton_log import Kind
from immich_triton.server.triton_models import RepositoryWatch, loading_order, wanted_models
from immich_triton.server.triton_report import Report
from immich_triton.server.triton_settings import TritonSettings
from immich_triton.server.triton_stubs import StubWatch
from immich_triton.triton import wire as triton_wire

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives on Linux
SHARING = 3
"""The pipelines for images: each may take a third of the shared memory that is left."""
EXIT_SECONDS = 10
"""What Triton is given to finish requests in flight; after that it ends by itself."""


class TritonProcess:
    """One embedded server. Single-threaded: call `poll` several times a second between `start` and `stop`.

    ``say`` gets one line at a time for the terminal: progress, models that failed with their reason, warnings, deaths.
    ``live`` tells whether the server answers, which it does before any model is loaded; ``ready`` whether every model
    was loaded or has failed, ``was_ready`` whether that was ever so. *idle* decides what sleeps; nothing by itself.
    """

    def __init__(self, settings: TritonSettings, say: Callable[[str], None], idle: Idle | None = None) -> None:
        self.settings = settings
        self._idle = idle or Idle(0)
        self.live = False
        self.ready = False
        self.was_ready = False
        self._say = say
        self._report = Report(settings, say)
        self._log = triton_log.LogFollower(settings.run_dir / "triton.log")
        backends = settings.run_dir / "backends"
        self._pid_file = PidFile(settings.run_dir / "triton.pid", f"--backend-directory={backends}")
        self._lock: TextIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._caretaker: Caretaker | None = None
        self._clock = OwnTime()
        self._order: list[str] = []
        self._back_off = BackOff()
        self._began = 0.0
        self._start_again = 0.0
        self._last_answer = 0.0
        self._next_question = 0.0

    @property
    def log_path(self) -> Path:
        """Where everything that Triton and its models print goes."""
        return self._log.path

    @property
    def failed(self) -> dict[str, str]:
        """The models that could not be loaded, and why."""
        return self._report.failed

    def reserve(self) -> None:
        """Check this machine, the run directory and the ports, and end what a killed supervisor left behind.

        `start` does it too, when it was not done before. Raises `StartError`.
        """
        settings = self.settings
        preflight.check_platform()
        triton_install.check()
        if not settings.key and not is_loopback(settings.host):
            raise StartError(f"Triton has no passwords: on {settings.host} it needs --key (or leave --host away)")
        settings.run_dir.mkdir(parents=True, exist_ok=True)
        self._take_run_dir()
        try:
            self._pid_file.end_predecessor(EXIT_SECONDS + 2)
            self._remove_shared_memory()
            preflight.check_executable(settings.run_dir)
            preflight.check_shared_memory(settings.shared_memory_mib)
            preflight.check_ports(settings.ports)
        except BaseException:
            self._release_run_dir()
            raise

    def start(self) -> None:
        """Prepare and start; return at once, `poll` tells when it is live. Raises `StartError`."""
        if self._lock is None:
            self.reserve()
        try:
            preflight.check_models(self.settings.models)
            triton_install.prepare(self.settings.run_dir, self.settings.onnxruntime_backend)
            self._log.rotate()
            self._spawn()
        except BaseException:
            self._release_run_dir()
            raise

    def poll(self) -> None:
        """Pass on what happened since the last call. Raises `StartError` when the server ended before it was ready."""
        self._clock()
        self._read_log()
        if self._process is None:
            if time.monotonic() >= self._start_again:
                self._spawn_again()
            return
        code = self._process.poll()
        if code is not None:
            self._read_log()
            self._died(code)
            return
        if not self.live:
            if self._answers():
                self.live = True
                self._last_answer = self._clock()
                if self._caretaker is not None:
                    self._caretaker.load(self._order)
        elif self._hangs():
            self._say(f"Triton has not answered for {self.settings.hang_seconds:.0f} s; ending it")
            self.kill()
        if self.live and self._caretaker is not None:
            self._caretaker.poll(self._healthy)
            self._idle.report(loading=self._caretaker.starting, failed=self._report.failed)
            if not self.ready and not self._caretaker.starting:
                self._read_log()
                self._became_ready(self._caretaker.errors)

    def stop(self) -> None:
        """End the server: requests in flight get ten seconds. Afterwards nothing of it is left but the log.

        Does nothing when no server was started.
        """
        if self._lock is None:  # whatever runs in this run directory is not ours
            return
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_SECONDS + 5)
            kill_session(self._process.pid)
            self._process.wait()
            self._process = None
        self._dismiss_caretaker()  # after the server's end: what its threads wait for has failed
        self._remove_shared_memory()
        self._pid_file.remove()
        self._release_run_dir()
        self.live = self.ready = False

    def kill(self) -> None:
        """End the server at once; `stop` still has to be called."""
        if self._process is not None:
            kill_session(self._process.pid)

    def _spawn_again(self) -> None:
        settings = self.settings
        try:
            # The run directory may have been removed meanwhile, as by `make clean`; the repository may be away.
            triton_install.prepare(settings.run_dir, settings.onnxruntime_backend)
            self._spawn()
        except (OSError, StartError) as error:
            self._plan_start(f"Triton cannot be started: {error}", lived=0.0)

    def _plan_start(self, reason: str, lived: float) -> None:
        delay = self._back_off.after(lived)
        self._start_again = time.monotonic() + delay
        self._say(f"{reason}; starting it again in {delay:g} s (log: {self.log_path})")

    def _spawn(self) -> None:
        settings = self.settings
        # Before the look at the files: what changes in between is loaded twice rather than not at all.
        repository = RepositoryWatch(settings.models, only_routed=settings.only_routed)
        self._idle.follow(repository.routes())
        order = loading_order(settings.models, wanted_models(settings.models, only_routed=settings.only_routed))
        self._order = self._idle.begin(order)
        command = triton_install.command(
            settings.models,
            settings.run_dir / "backends",
            host=settings.host,
            http_port=settings.http_port,
            metrics_port=settings.metrics_port,
            key=settings.key,
            metrics_host=settings.metrics_host or settings.host,
            shm_prefix=settings.shm_prefix,
            exit_seconds=EXIT_SECONDS,
        )
        self._report.begin()
        self._began = time.monotonic()
        with self._log.path.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent.wrap(command),
                env=triton_install.environment(settings.run_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the supervisor alone, which stops things in order.
                start_new_session=True,
            )
        self._pid_file.write(self._process.pid)
        stubs = StubWatch(self._process.pid, settings.models, settings.hung_seconds, self._clock)
        control = ModelControl(settings.url, settings.key, config=self._configs())
        self._caretaker = Caretaker(
            stubs, repository, control, self._say, settings.leave_seconds, self._clock, self._idle
        )

    def _configs(self) -> pipeline_processes.Configs:
        settings = self.settings
        if not settings.gpu:
            return lambda _model: None
        # What the models take by and by, as long as they have taken nothing.
        free = pipeline_processes.free_shared_memory(SHARED_MEMORY, settings.shared_memory_mib)
        return pipeline_processes.configs(settings.models, free // SHARING)

    def _healthy(self, model: str) -> bool:
        return model in self._report.loaded and model not in self._report.failed

    def _answers(self) -> bool:
        try:
            with loopback.OPENER.open(self.settings.url + triton_wire.LIVE, timeout=1) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _hangs(self) -> bool:
        now = self._clock()
        if now >= self._next_question:
            if self._answers():
                self._last_answer = self._clock()
            self._next_question = self._clock() + self.settings.hang_seconds / 6
        return now - self._last_answer > self.settings.hang_seconds

    def _became_ready(self, errors: Mapping[str, str]) -> None:
        report = self._report
        for model, error in errors.items():
            if model not in report.loaded and model not in report.failed:  # the log did not say it
                report.fail(model, error)
        self.ready = self.was_ready = True
        seconds = time.monotonic() - self._began
        text = f"ready in {seconds:.1f} s on {self.settings.url} with {len(report.loaded)} models"
        self._say(text + (f", {len(report.failed)} could not be loaded" if report.failed else ""))

    def _died(self, code: int) -> None:
        process, self._process = self._process, None
        self._dismiss_caretaker()
        lived = time.monotonic() - self._began
        if process is not None:
            kill_session(process.pid)
        self._remove_shared_memory()
        self._pid_file.remove()
        how = how_it_ended(code)
        if not self.was_ready:
            self._release_run_dir()
            reason = f": {self._report.errors[-1]}" if self._report.errors else ""
            raise StartError(f"Triton {how} while starting{reason} (log: {self.log_path})")
        was_well, self.live, self.ready = self.ready, False, False
        self._plan_start(f"Triton {how} after {lived:.0f} s", lived if was_well else 0.0)

    def _dismiss_caretaker(self) -> None:
        if self._caretaker is not None:
            self._caretaker.close()
            self._caretaker = None

    def _read_log(self) -> None:
        for line in self._log.lines():
            if event := triton_log.interpret(line):
                self._report.take(event, "" if self.ready else f" ({time.monotonic() - self._began:.1f} s)")
                if event.kind is Kind.UNHEALTHY and self._caretaker is not None:
                    self._caretaker.complain(event.model)

    def _take_run_dir(self) -> None:
        lock = (self.settings.run_dir / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StartError(
                f"another supervisor runs a Triton in {self.settings.run_dir}; stop it, or use another --run-dir"
            ) from error
        self._lock = lock

    def _release_run_dir(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _remove_shared_memory(self) -> None:
        for path in SHARED_MEMORY.glob(f"{self.settings.shm_prefix}*"):
            path.unlink(missing_ok=True)
