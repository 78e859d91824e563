"""Polygons of masks, against SciPy's components and scikit-image's rasteriser."""

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon as drawn

from ppool.service.codecs import outlines as module
from ppool.service.codecs.outlines import outlines
from ppool.service.errors import TooDetailed

planes = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(
    lambda shape: st_numpy.arrays(np.bool_, shape)
)


def rasterised(polygons: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside."""
    plane = np.zeros(shape, bool)
    for polygon in polygons:
        shell, *holes = (np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors))
        plane[drawn(shell[:, 1] - 0.5, shell[:, 0] - 0.5, shape)] = True
        for hole in holes:
            plane[drawn(hole[:, 1] - 0.5, hole[:, 0] - 0.5, shape)] = False
    return plane


def blobs(height: int, width: int, sigma: float = 3, seed: int = 0) -> NDArray[np.bool_]:
    """Shapes such as networks find, with holes and islands in them."""
    noise = np.random.default_rng(seed).standard_normal((height, width))
    return ndimage.gaussian_filter(noise, sigma) > 0.3 * ndimage.gaussian_filter(noise, sigma).std()


@settings(deadline=None, max_examples=200)
@given(planes)
def test_at_tolerance_0_each_component_is_a_valid_polygon_of_its_very_pixels(
    plane: NDArray[np.bool_],
) -> None:
    labels, count = ndimage.label(plane)
    found = outlines(plane)
    polygons = found.simplified(0)
    assert len(polygons) == count
    assert shapely.is_valid(polygons).all()
    seen = set()
    for polygon, area, box in zip(polygons, found.areas, found.boxes, strict=True):
        own = rasterised(np.array([polygon]), plane.shape)
        (label,) = set(labels[own].tolist())
        seen.add(label)
        np.testing.assert_array_equal(own, labels == label)
        rows, columns = ndimage.find_objects(labels)[label - 1]
        assert area == polygon.area == own.sum()
        assert box[:2].tolist() == [columns.start, rows.start]
        assert (box[:2] + box[2:]).tolist() == [columns.stop, rows.stop]
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
    assert seen == set(range(1, count + 1))
    assert found.boxes[:, 1].tolist() == sorted(found.boxes[:, 1])


@settings(deadline=None, max_examples=200)
@given(planes, st.floats(0.1, 6))
def test_simplified_polygons_are_valid_and_no_further_away_than_stated(
    plane: NDArray[np.bool_], tolerance: float
) -> None:
    found = outlines(plane)
    simplified = found.simplified(tolerance)
    assert shapely.is_valid(simplified).all()
    assert set(shapely.get_type_id(simplified)) <= {shapely.GeometryType.POLYGON}
    assert len(simplified) == len(found.polygons)
    borders, exact = shapely.boundary(simplified), shapely.boundary(found.polygons)
    assert (shapely.hausdorff_distance(borders, exact) <= tolerance + 1e-9).all()
    corners = shapely.get_coordinates(simplified)
    np.testing.assert_array_equal(2 * corners, np.round(2 * corners))


@pytest.mark.parametrize(("tolerance", "agreement"), [(0, 1), (0.5, 0.999), (1, 0.993), (2, 0.97)])
def test_masks_come_back_from_simplified_polygons(tolerance: float, agreement: float) -> None:
    plane = blobs(400, 500, 6)
    polygons = outlines(plane).simplified(tolerance)
    assert any(polygon.interiors for polygon in polygons)
    assert (rasterised(polygons, plane.shape) == plane).mean() >= agreement


def test_simplifying_leaves_far_fewer_corners() -> None:
    found = outlines(blobs(400, 500, 6))
    exact, fewer = (shapely.get_num_coordinates(found.simplified(far)).sum() for far in (0, 1))
    assert fewer < exact / 3


def test_an_edge_goes_on_until_it_turns() -> None:
    plane = np.zeros((9, 12), bool)
    plane[2:7, 3:10] = True
    plane[4, 5:8] = False
    (polygon,) = outlines(plane).polygons
    assert shapely.get_num_coordinates(polygon) == 10
    assert polygon.bounds == (3, 2, 10, 7)
    assert polygon.interiors[0].bounds == (5, 4, 8, 5)


def test_a_mask_made_larger_has_the_same_polygons_larger() -> None:
    plane = blobs(40, 60, 2)
    small, large = outlines(plane), outlines(plane.repeat(7, 0).repeat(9, 1))
    scaled = shapely.transform(small.polygons, lambda corners: corners * (9, 7))
    assert shapely.equals_exact(scaled, large.polygons).all()
    np.testing.assert_array_equal(large.areas, small.areas * 63)


@settings(deadline=None, max_examples=100)
@given(planes, st.integers(1, 120))
def test_what_is_traced_in_strips_is_what_is_traced_at_once(
    plane: NDArray[np.bool_], cells: int
) -> None:
    whole = outlines(plane)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_CELLS", cells)
        strips = outlines(plane)
    np.testing.assert_array_equal(strips.areas, whole.areas)
    np.testing.assert_array_equal(strips.boxes, whole.boxes)
    assert shapely.equals(strips.polygons, whole.polygons).all()
    assert (
        shapely.get_num_coordinates(strips.polygons) <= shapely.get_num_coordinates(whole.polygons)
    ).all()


@pytest.mark.parametrize("tolerance", [0, 1])
def test_nothing_has_no_polygons(tolerance: float) -> None:
    found = outlines(np.zeros((5, 7), bool))
    assert len(found.simplified(tolerance)) == len(found.areas) == len(found.boxes) == 0


def test_noise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chequered = np.indices((40, 40)).sum(0) % 2 == 0
    monkeypatch.setattr(module, "_MOST_REGIONS", 799)
    with pytest.raises(TooDetailed, match=r"^Ask for .* more than 799 regions"):
        outlines(chequered)
    monkeypatch.setattr(module, "_MOST_REGIONS", 800)
    assert len(outlines(chequered).polygons) == 800
