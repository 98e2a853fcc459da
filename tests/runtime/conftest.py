"""Deployments that the tests of the runtime share; building one and launching its enclave takes a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime_deployments import Deployment, deploy, images, vectors

from siniantrust.runtime import Session


@pytest.fixture(scope="session")
def vector_deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a two-part deployment of the chain, cut at ``t3``."""
    return deploy(vectors(), tmp_path_factory.mktemp("vectors"), cut="t3")


@pytest.fixture(scope="session")
def image_deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a three-part deployment of the residual network, whose outputs are private too."""
    folder = tmp_path_factory.mktemp("images")
    return deploy(images(), folder, cut="r0", threat_model="output-privacy")


@pytest.fixture(scope="module")
def session(vector_deployment: Deployment) -> Iterator[Session]:
    """Return one session for all tests of a module that do it no harm."""
    with vector_deployment.open() as opened:
        yield opened
