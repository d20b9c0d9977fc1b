"""One small published release for all tests that only read it."""

from pathlib import Path

import pytest

from serving.predictor import Predictor
from serving.release import release_folder
from tests.fixtures.releases import TENANT, publish_small


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published release."""
    home = tmp_path_factory.mktemp("bentoml")
    return release_folder(home, TENANT, publish_small(home, tmp_path_factory.mktemp("models")))


@pytest.fixture
def predictor(small_release: Path) -> Predictor:
    """Loaded anew for each test, since answers move its catalogue on."""
    return Predictor.load(small_release, max_events=200)
