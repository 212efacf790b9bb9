"""What Triton's error texts mean."""

from __future__ import annotations

import pytest

from immich_triton.triton.faults import Diagnosis, diagnose

# As Triton 2.51 words it, observed with processes that were killed, stopped and unloaded.
HUNG = "Stub process 'ocr_0_2' is not healthy."
NET_HUNG = "ModelCallError: model ocr_rec failed: Stub process 'ocr_rec_0_1' is not healthy."
NET_UNLOADED = (
    "ModelCallError: model ocr_rec failed: Model ocr_rec - Error when running inference: "
    "Failed for execute the inference request. Model 'ocr_rec' is not ready."
)
SHM = (
    "Failed to increase the shared memory pool size for key 'triton_python_backend_shm_region_1' to 67108864 bytes. "
    "If you are running Triton inside docker, use '--shm-size' flag to control the shared memory region size."
)
ORT = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:342 Failed to allocate memory for requested buffer"


@pytest.mark.parametrize(
    ("status", "text", "meaning"),
    [
        ("500", HUNG, Diagnosis("process", "ocr")),
        ("500", NET_HUNG, Diagnosis("process", "ocr_rec")),
        ("500", "in ensemble 'all', Stub process 'pre_0_0' is not healthy.", Diagnosis("process", "pre")),
        (
            "500",
            "Failed to process the request(s) for model instance 'ocr_0', message: Stub process is not healthy.",
            Diagnosis("process", "ocr"),
        ),
        ("500", "Stub process is unhealthy and it will be restarted.", Diagnosis("process", "ocr", renewed=True)),
        ("500", "The stub process has exited unexpectedly.", Diagnosis("process", "ocr")),
        ("404", "Request for unknown model: 'ocr' has no available versions", Diagnosis("unloaded", "ocr")),
        ("400", "Request for unknown model: 'ocr' is not found", Diagnosis("unloaded", "ocr")),
        ("500", NET_UNLOADED, Diagnosis("unloaded", "ocr_rec")),
        ("500", "in-flight requests of model 'ocr' that is being unloaded", Diagnosis("unloaded", "ocr")),
        (
            "503",
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            Diagnosis("unloaded", "ocr"),
        ),
        ("500", SHM, Diagnosis("memory")),
        ("500", f"TritonModelException: {SHM}", Diagnosis("memory")),
        ("500", f"ModelCallError: model ocr_rec failed: {SHM}", Diagnosis("memory")),
        ("500", "Failed to process the request(s) for model 'ocr_0_0', message: " + SHM, Diagnosis("memory")),
        ("500", "_ArrayMemoryError: Unable to allocate 785. MiB for an array", Diagnosis("memory")),
        (
            "500",
            f"ModelCallError: model ocr_det failed: {ORT}",
            Diagnosis("memory"),
        ),
        ("503", "Exceeds maximum queue size", Diagnosis("busy")),
        ("502", "<html>Bad Gateway</html>", Diagnosis("busy")),
        ("504", "", Diagnosis("busy")),
        ("500", "ValueError: boom", Diagnosis("status")),
        ("500", "ModelCallError: model ocr_rec gave no output x", Diagnosis("status")),
        ("400", "unexpected inference output 'X' for model 'ocr'", Diagnosis("status")),
    ],
)
def test_the_server_is_told_apart_from_the_request(status: str, text: str, meaning: Diagnosis) -> None:
    assert diagnose(status, text, "ocr") == meaning


@pytest.mark.parametrize("text", [HUNG, NET_UNLOADED, NET_HUNG, "Request for unknown model: 'ocr' is not found"])
@pytest.mark.parametrize("quoted", ["KeyError: '{}'", "ValueError: cannot read {}", "UnicodeError: {}"])
def test_a_query_that_is_quoted_does_not_look_like_a_dead_server(text: str, quoted: str) -> None:
    assert diagnose("500", quoted.format(text), "clip_text").kind == "status"


def test_a_text_of_any_length_is_looked_at_in_bounded_time() -> None:
    assert diagnose("500", "in-flight " * 1_000_000, "ocr").kind == "status"
    assert diagnose("500", "Error: model a failed: " * 1_000_000, "ocr").kind == "status"
