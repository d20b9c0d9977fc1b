"""No process of a divided fit makes the whole table of items or reads all of their content at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchrec import EmbeddingCollection, EmbeddingConfig

from tests.training import divided_fit
from tests.training.catalogue import build_dataset
from tests.training.test_mapped_columns import is_mapped
from tests.training.test_sharded_training import lines, torchrun
from training.models.content_based.encoder import ContentEncoder
from training.models.deep_learning import distributed, divided_tables, validation
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.divided_tables import drawn_rows, rows_of_rank
from training.models.deep_learning.encoded_content import encoded_content
from training.models.deep_learning.network import N_TYPES
from training.models.deep_learning.task import _init

pytestmark = pytest.mark.fit


@pytest.mark.parametrize(("n_rows", "width", "size"), [(37, 8, 2), (64, 16, 3), (5, 24, 4), (100, 5, 3)])
def test_ranks_draw_the_rows_that_a_single_process_draws(
    n_rows: int, width: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divided_tables, "ROWS_DRAWN_AT_ONCE", 16)
    torch.manual_seed(7)
    config = EmbeddingConfig(name="t", embedding_dim=width, num_embeddings=n_rows, feature_names=["t"], init_fn=_init)
    whole = EmbeddingCollection(tables=[config]).embeddings["t"].weight.detach()
    state = torch.get_rng_state()
    found = []
    for rank in range(size):
        torch.manual_seed(7)
        found.append(drawn_rows(n_rows, width, rows_of_rank(n_rows, rank, size)))
        assert torch.equal(torch.get_rng_state(), state)
    assert max(map(len, found)) == -(-n_rows // size)
    assert torch.equal(torch.cat(found), whole)


@pytest.fixture
def held_by_one(monkeypatch: pytest.MonkeyPatch) -> int:
    """The rows that an ordinary fit holds: what the measurement finds where nothing is divided."""
    held: list[int] = []
    for module, name in ((validation, "HISTORIES_SCORED_AT_ONCE"), (divided_tables, "ROWS_DRAWN_AT_ONCE")):
        monkeypatch.setattr(module, name, getattr(module, name))  # the measurement sets them
    monkeypatch.setattr(distributed, "_train", divided_fit.train_measured)
    monkeypatch.setattr(divided_fit.log, "info", lambda _, rows, stage: held.append(rows))
    divided_fit.fit()
    return max(held)


def test_each_process_holds_its_share_of_the_rows(held_by_one: int) -> None:
    assert held_by_one == divided_fit.N_ITEMS
    held = lines(torchrun(2, "tests.training.divided_fit"), "held")
    assert sorted(each["process"] for each in held) == [0, 0, 1, 1]
    assert {each["stage"] for each in held} == {"fit", "held-out"}
    share = divided_fit.N_ITEMS // 2
    assert all(share <= each["rows"] <= share + 2 * N_TYPES for each in held)  # rows of both tables are sent together


def test_content_of_a_large_catalogue_is_encoded_in_parts_and_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = build_dataset().items.metadata
    encoder = ContentEncoder(DeepLearningConfig().content).fit(metadata)
    whole = encoded_content(encoder, metadata, tmp_path)
    assert np.array_equal(whole, encoder.transform(metadata)) and not is_mapped(whole)
    monkeypatch.setattr("training.models.deep_learning.encoded_content.ENCODED_AT_ONCE", 50)
    parts = encoded_content(encoder, metadata, tmp_path)
    assert is_mapped(parts) and not list(tmp_path.iterdir())
    assert np.allclose(parts, whole, atol=1e-6) and parts.dtype == np.float32
