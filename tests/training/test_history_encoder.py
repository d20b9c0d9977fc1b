"""The user tower in NumPy computes what the network computes: vectors, and the gradients of presence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.online import Histories
from training.models.deep_learning.attribution import presence_gradients
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.inference import HistoryEncoder, main_directions
from training.models.deep_learning.network import Network
from training.models.deep_learning.user_vectors import user_vectors

N_ITEMS = 30
MAX_LENGTH = 24


def network(blocks: int, heads: int, half_lives: tuple[float, ...], scale: float, seed: int) -> Network:
    """A network of random weights of which none is zero or one, as after a training."""
    torch.manual_seed(seed)
    config = DeepLearningConfig(
        dimensions=8, blocks=blocks, heads=heads, max_length=MAX_LENGTH, popularity_half_lives=half_lives
    )
    found = Network(5, config)
    for parameter in found.parameters():
        parameter.data += scale * torch.randn_like(parameter)
    return found.eval().requires_grad_(False)


def histories(lengths: list[int], seed: int) -> Histories:
    random, n = np.random.default_rng(seed), sum(lengths)
    return Histories(
        random.integers(0, N_ITEMS, n).astype(np.int32),
        random.integers(0, 4, n).astype(np.int8),
        random.random(n).astype(np.float32),
        np.arange(n),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
    )


@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([(), (14.0, 90.0)]),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.lists(st.integers(0, MAX_LENGTH), min_size=1, max_size=5),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_vectors_and_gradients_are_those_of_the_network(
    blocks: int, heads: int, half_lives: tuple[float, ...], scale: float, lengths: list[int], seed: int
) -> None:
    net, batch = network(blocks, heads, half_lives, scale, seed), histories(lengths, seed)
    items = torch.randn(N_ITEMS, 8) * scale
    plain = user_vectors(net.users, batch, items, net.types, MAX_LENGTH).numpy()
    encoder = HistoryEncoder(net.users, net.types)
    encoded = encoder.encode(items.numpy()[batch.items], batch.types, batch.weights, np.array(lengths))
    np.testing.assert_allclose(encoded.vectors, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())
    wanted = torch.randn(3, len(lengths), plain.shape[1])
    gradients = presence_gradients(net.users, batch, wanted, items, net.types, MAX_LENGTH)
    found = encoder.presence_gradients(encoded, wanted.numpy())
    expected = np.concatenate([gradients[:, row, :length] for row, length in enumerate(lengths)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-3 * np.abs(expected).max(initial=0) + 1e-4)


def test_attention_scores_of_any_size_give_finite_vectors() -> None:
    net = network(2, 2, (14.0,), 60.0, 0)
    batch, items = histories([20, 3], 1), 50 * torch.randn(N_ITEMS, 8)
    encoded = HistoryEncoder(net.users, net.types).encode(
        items.numpy()[batch.items], batch.types, batch.weights, np.array([20, 3])
    )
    assert np.isfinite(encoded.vectors).all()


@pytest.mark.parametrize("k", [1, 4, 10])
def test_main_directions_give_back_vectors_that_are_alike(k: int) -> None:
    random = np.random.default_rng(k)
    vectors = (random.random((2, k, 4)) @ random.random((2, 4, 16))).astype(np.float32)  # of rank 4
    main, along = main_directions(vectors, 4)
    np.testing.assert_allclose(main @ along, vectors, atol=1e-4)
