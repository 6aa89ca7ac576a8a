"""Colours of features: the directions are those of most variance, and a token keeps its colour wherever it is read."""

from __future__ import annotations

import numpy as np
import torch

from ditr.features.principal_colours import fit_colours


def test_directions_and_shares_are_those_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(400, 12)) * np.linspace(4, 0.1, 12) @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
    found = fit_colours(torch.from_numpy(tokens))
    variances, vectors = np.linalg.eigh(np.cov(tokens.T))
    np.testing.assert_allclose(found.explained, variances[::-1][:3] / variances.sum(), rtol=1e-9)
    for direction, vector in zip(found.directions, vectors.T[::-1], strict=False):
        assert abs(direction @ vector) > 1 - 1e-9
    again = fit_colours(torch.from_numpy(tokens[::-1].copy()))  # signs do not hang on the order of the tokens
    np.testing.assert_allclose(again.directions, found.directions, atol=1e-9)


def test_tokens_of_two_kinds_are_the_two_ends_of_one_colour() -> None:
    tokens = torch.zeros(100, 8, dtype=torch.float16)
    tokens[:40, 2], tokens[40:, 5] = 3.0, 3.0
    found = fit_colours(tokens)
    colours = found.of(tokens)
    np.testing.assert_allclose(found.explained, [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(colours[:, 1:], 0.5)  # nothing differs there, and rounding is not blown up
    assert {colours[0, 0], colours[99, 0]} == {0.0, 1.0}
    between = found.of((tokens[:1].float() + tokens[99:].float()) / 2)
    np.testing.assert_allclose(between, 0.5, atol=1e-6)


def test_a_few_outliers_do_not_take_all_colours() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(1000, 6))
    tokens[:5] += 1e3
    colours = fit_colours(torch.from_numpy(tokens)).of(torch.from_numpy(tokens[5:]))
    assert np.ptp(colours, axis=0).min() == 1.0


def test_a_map_of_one_token_or_of_equal_tokens_is_grey() -> None:
    for tokens in (torch.ones(1, 4), torch.full((50, 2), 0.1)):
        found = fit_colours(tokens)
        np.testing.assert_array_equal(found.of(tokens), 0.5)
        assert found.explained == (0.0, 0.0, 0.0)
