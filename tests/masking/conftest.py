"""Networks under exact masks, which tests of several files run."""

from __future__ import annotations

import pytest
from exact_models import NETWORKS, loaded, program_of, residual_network

from siniantrust.graph import Model
from siniantrust.masking.exact import Program


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return each network."""
    return loaded(NETWORKS[request.param](), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    """Return it with all its layers on devices."""
    return program_of(model)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Return the residual network with all its layers on devices."""
    return program_of(loaded(residual_network(), tmp_path_factory.mktemp("residual")))
