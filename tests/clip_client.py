"""Ask the CLIP pipelines of a Triton server directly, and look into its counters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
import tritonclient.http
from embedded_triton import TritonServer
from tritonclient.utils import InferenceServerException

from immich_pipelines.errors import MARK


@dataclass(frozen=True)
class Refused:
    """An error answer: its HTTP status, and its text."""

    status: str
    text: str

    @property
    def bad_input(self) -> bool:
        """Whether the image or the text is to blame, by the contract between pipelines and gateway."""
        return self.status == "400" and self.text.startswith(MARK)


@dataclass(frozen=True)
class ClipClient:
    """Calls *server*; every call has a connection of its own, so threads may share the object."""

    server: TritonServer

    def image(self, data: bytes, encoder: str) -> tuple[npt.NDArray[np.float32], tuple[int, int]] | Refused:
        """Return the embedding and (height, width)."""
        result = self._ask("clip_image", "IMAGE", data, encoder)
        if isinstance(result, Refused):
            return result
        height, width = result.as_numpy("IMAGE_SIZE")[0].tolist()
        return result.as_numpy("EMBEDDING")[0], (height, width)

    def image_embedding(self, data: bytes, encoder: str) -> npt.NDArray[np.float32]:
        """Return the embedding of an image that must be answered."""
        result = self.image(data, encoder)
        assert not isinstance(result, Refused), result
        return result[0]

    def text(self, text: bytes, encoder: str) -> npt.NDArray[np.float32] | Refused:
        """Return the embedding."""
        result = self._ask("clip_text", "TEXT", text, encoder)
        if isinstance(result, Refused):
            return result
        embedding: npt.NDArray[np.float32] = result.as_numpy("EMBEDDING")[0]
        return embedding

    def images(self, files: Iterable[bytes], encoder: str, concurrency: int) -> npt.NDArray[np.float32]:
        """Return the embeddings of many images asked for at the same time, in their order."""
        with ThreadPoolExecutor(concurrency) as pool:
            return np.stack(list(pool.map(lambda data: self.image_embedding(data, encoder), files)))

    def texts(self, texts: Iterable[str], encoder: str) -> npt.NDArray[np.float32]:
        """Return the embeddings of texts that must be answered."""
        results = [self.text(text.encode("utf-8", "surrogatepass"), encoder) for text in texts]
        for result in results:
            assert not isinstance(result, Refused), result
        return np.stack([result for result in results if not isinstance(result, Refused)])

    def load(self, model: str) -> None:
        """Have Triton load a model anew."""
        self._repository(model, "load")

    def unload(self, model: str) -> None:
        """Have Triton unload a model."""
        self._repository(model, "unload")

    def count(self, counter: str, model: str) -> float:
        """Return one of Triton's own counters, such as ``nv_inference_count``."""
        text = requests.get(f"{self.server.metrics_url}/metrics", timeout=10).text
        found = re.findall(rf'^{counter}{{model="{re.escape(model)}",version="1"}} (\S+)$', text, re.MULTILINE)
        return sum(map(float, found))

    def _ask(self, model: str, name: str, value: bytes, encoder: str) -> Any:
        tensor = tritonclient.http.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[value]], object))
        url = self.server.url.removeprefix("http://")
        with tritonclient.http.InferenceServerClient(url, network_timeout=60) as client:
            try:
                return client.infer(model, [tensor], parameters={"encoder": encoder})
            except InferenceServerException as error:
                return Refused(str(error.status()).strip("[]"), error.message())

    def _repository(self, model: str, action: str) -> None:
        url = f"{self.server.url}/v2/repository/models/{model}/{action}"
        requests.post(url, json={}, timeout=60).raise_for_status()
