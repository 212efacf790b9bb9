"""One double of Immich and one mitmdump in front of it, for all tests of searches in a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from gateway_process import GatewayProcess
from immich_photos import KEY
from immich_site import ImmichSite, running_site
from postgres_server import Cluster, ImmichDatabase, running_postgres, with_zhparser, without_zhparser
from site_process import running_web
from site_searches import Search


@pytest.fixture(scope="module")
def shared_site() -> Iterator[ImmichSite]:
    """Give the double; use `site`, which is fresh for each test."""
    with running_site() as double:
        yield double


@pytest.fixture(scope="module")
def web(shared_site: ImmichSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Give mitmdump with small lists: 10 photos of each search, and a patience that a busy machine does not end."""
    directory = tmp_path_factory.mktemp("web")
    with running_web(directory, shared_site.url, web_depth=10, web_ocr_timeout=5000) as process:
        yield process


@pytest.fixture
def site(shared_site: ImmichSite) -> ImmichSite:
    """Give the double as it is without photos and faults."""
    fresh = ImmichSite(url=shared_site.url)
    vars(shared_site).update(vars(fresh))
    return shared_site


@pytest.fixture
def search(web: GatewayProcess) -> Search:
    """Give a client of mitmdump: ``search(body, path="/api/search/smart", key=KEY, **headers)``."""

    def ask(body: Any, path: str = "/api/search/smart", key: str | None = KEY, **headers: str) -> requests.Response:
        known = {"x-api-key": key} if key else {}
        return requests.post(f"{web.url}{path}", json=body, headers=known | headers, timeout=60)

    return ask


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """Give a real PostgreSQL, or skip the test and say what installs it."""
    with running_postgres() as cluster:
        yield cluster


@pytest.fixture
def tables(postgres: Cluster) -> ImmichDatabase:
    """Give a database with Immich's tables, empty, in which nothing of ours was installed."""
    return postgres.database()


@pytest.fixture(scope="module", params=[without_zhparser, with_zhparser], ids=lambda level: level.__name__)
def installed(request: pytest.FixtureRequest, postgres: Cluster) -> ImmichDatabase:
    """Give a database for each level of search, for all tests of a module."""
    database: ImmichDatabase = request.param(postgres)
    return database
