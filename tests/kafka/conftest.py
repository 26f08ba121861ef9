"""Clusters for whole modules: starting nodes takes longer than most tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_cluster import Cluster, OwnServices, Places, cluster_of, own_services, shared_places


@pytest.fixture(scope="module", autouse=True)
def environment_of_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What outlives a test must not read the settings of whoever runs the tests either."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("KAMA_") and not name.startswith(("KAMA_TEST_", "KAMA_SERVICES_")):
                patch.delenv(name)
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(home))
        yield


@pytest.fixture(scope="module")
def places() -> Places:
    """The services of this run, for those who leave them running."""
    return shared_places()


@pytest.fixture(scope="module")
def trio(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for all tests of a module."""
    with cluster_of(3, tmp_path_factory.mktemp("trio"), places) as cluster:
        yield cluster


@pytest.fixture
def services(tmp_path: Path) -> Iterator[OwnServices]:
    """Servers of this test alone: one broker, a Redis and a PostgreSQL."""
    with own_services(tmp_path / "services") as own:
        yield own


@pytest.fixture(scope="module")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServices]:
    """Three brokers of this module's own, with a Redis and a PostgreSQL."""
    with own_services(tmp_path_factory.mktemp("brokers") / "services", brokers=3) as own:
        yield own
