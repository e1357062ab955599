"""The radiometric map over every stored number there is."""

import numpy as np
import torch

from rsup.models.base.radiometry import KNEE, KNEE_VALUE, brightness, from_network, to_network

ALL = np.arange(1, 65536, dtype=np.uint16)


def test_round_trip_stays_within_half_a_dn() -> None:
    back = from_network(torch.from_numpy(to_network(ALL))).numpy()
    error = np.abs(back - ALL.astype(np.float64))
    assert error.max() < 0.5
    np.testing.assert_array_equal(np.rint(back).astype(np.uint16), ALL)


def test_the_map_is_strictly_monotone_and_fills_the_range() -> None:
    value = to_network(ALL)
    assert value.dtype == np.float32
    assert (np.diff(value) > 0).all()
    assert value[0] == -1 and abs(value[-1] - 1) < 1e-6


def test_land_is_linear_and_the_knee_is_smooth() -> None:
    dn = np.arange(1, 4001, dtype=np.float64)  # up to reflectance 0.3
    value = to_network(dn).astype(np.float64)
    np.testing.assert_allclose(value, -1 + (dn - 1) * (KNEE_VALUE + 1) / 3999, atol=1e-6)
    knee = np.array([3900.0, 4000.0, 4100.0])
    below, above = np.diff(to_network(knee).astype(np.float64))
    assert abs(KNEE - 0.3) < 1e-12 and 0.85 < above / below < 1


def test_values_beyond_the_range_are_clipped_to_valid_numbers() -> None:
    np.testing.assert_array_equal(from_network(torch.tensor([-5.0, 5.0])).round(), [1, 65535])


def test_a_tensor_is_mapped_as_an_array_is() -> None:
    value = to_network(torch.from_numpy(ALL.astype(np.float32)))
    assert isinstance(value, torch.Tensor) and value.dtype == torch.float32
    np.testing.assert_allclose(value.numpy(), to_network(ALL), rtol=0, atol=4e-7)
    assert (value.diff() > 0).all()
    np.testing.assert_array_equal(np.rint(from_network(value).numpy()).astype(np.uint16), ALL)


def test_pictures_are_straight_in_reflectance_and_white_at_425_thousandths() -> None:
    reflectance = np.array([-0.05, 0.0, 0.1, 0.2125, 0.35, 0.425, 1.2])
    shown = brightness(torch.from_numpy(to_network((reflectance + 0.1) * 1e4))).numpy()
    np.testing.assert_allclose(shown, [-1, -1, 0.1 / 0.2125 - 1, 0, 0.35 / 0.2125 - 1, 1, 1], rtol=0, atol=1e-4)
