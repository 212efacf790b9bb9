"""Read what the gateway or Triton exports for Prometheus."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Scrape:
    """One scrape; ``text`` as it came."""

    def __init__(self, url: str) -> None:
        response = requests.get(f"{url}/metrics", timeout=10)
        assert response.ok, response.text
        self.text = response.text
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}

    @property
    def samples(self) -> list[Sample]:
        """Every sample of every family."""
        return [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of that name with those labels; 0.0 when there is none."""
        found = [sample for sample in self.samples if sample.name == name]
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())

    def labels(self) -> set[str]:
        """Return every label value there is."""
        return {value for sample in self.samples for value in sample.labels.values()}
