"""Exact geometry in the plane: the linear regions of a network, the set of its outputs, polygons that enclose it.

Exact up to the rounding of float64: nothing here samples. Each file states the tolerance that it works with. A network
needs two inputs, or two directions of its input space (``regions.Plane``) to be looked at in.
"""

from lpverify.geometry.boundaries import Areas, class_areas
from lpverify.geometry.outer import outer_polygon
from lpverify.geometry.polygon import Polygon, area, clip, contains, half_planes, hull, rectangle
from lpverify.geometry.regions import LinearRegion, Plane, linear_regions
from lpverify.geometry.union import Outline, outline

__all__ = [
    "Areas",
    "LinearRegion",
    "Outline",
    "Plane",
    "Polygon",
    "area",
    "class_areas",
    "clip",
    "contains",
    "half_planes",
    "hull",
    "linear_regions",
    "outer_polygon",
    "outline",
    "rectangle",
]
