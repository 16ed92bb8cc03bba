"""A cheaper picture of the same scene: fewer triangles and no reflections; the physics does not notice.

Software rendering pays for triangles, not for pixels, and LIBERO's scenes have 300 thousand of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import SimulationError

TOLERANCE = 3e-4
"""How far a simplified surface may be from the original, in metres: about a tenth of a pixel at 256 x 256."""
LARGEST = 1.0
"""Walls and table tops, wider than this in metres, stay: light is computed at their vertices."""


def simplify_meshes(model: Any) -> None:
    """Thin out, in place, the meshes of an `mjModel` that are only looked at. Call it before a renderer uploads them.

    Raises:
        SimulationError: meshoptimizer is not installed.
    """
    try:
        import meshoptimizer  # noqa: F401
    except ImportError as error:
        raise SimulationError(
            f"fast rendering needs meshoptimizer ({error}); install it with: pip install meshoptimizer==0.2.30a0"
        ) from error
    for mesh in visual_meshes(model):
        _simplify(model, mesh)


def visual_meshes(model: Any) -> list[int]:
    """The meshes that no colliding geom uses."""
    import mujoco

    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    collides = (model.geom_contype | model.geom_conaffinity) != 0
    return sorted(set(model.geom_dataid[is_mesh & ~collides]) - set(model.geom_dataid[is_mesh & collides]))


def _simplify(model: Any, mesh: int) -> None:
    """Replace a mesh's triangles by fewer between the same vertices, with the normals and texture they have."""
    first_face = model.mesh_faceadr[mesh]
    faces = slice(first_face, first_face + model.mesh_facenum[mesh])
    indices = (model.mesh_face[faces], model.mesh_facenormal[faces], model.mesh_facetexcoord[faces])
    corners = np.stack(indices, axis=-1).reshape(-1, 3)  # of every triangle: vertex, normal, texture coordinate
    positions = model.mesh_vert[model.mesh_vertadr[mesh] + corners[:, 0]]
    normals = model.mesh_normal[model.mesh_normaladr[mesh] + corners[:, 1]]
    if np.ptp(positions, axis=0).max() > LARGEST:
        return
    # Corners at one place of the surface are one vertex to the simplifier; two sides of a texture's seam stay two.
    places = positions
    if model.mesh_texcoordadr[mesh] >= 0:
        places = np.hstack([positions, model.mesh_texcoord[model.mesh_texcoordadr[mesh] + corners[:, 2]]])
    _, example, place = np.unique(places, axis=0, return_index=True, return_inverse=True)
    triangles = _fewer_triangles(positions[example], place.ravel())
    if len(triangles) == 0:  # smaller than the tolerance as a whole
        return
    chosen = corners[_corners_facing(triangles, positions[example], place.ravel(), normals)].reshape(-1, 3, 3)
    faces = slice(first_face, first_face + len(triangles))
    model.mesh_face[faces], model.mesh_facenormal[faces], model.mesh_facetexcoord[faces] = np.moveaxis(chosen, -1, 0)
    model.mesh_facenum[mesh] = len(triangles)


def _fewer_triangles(positions: NDArray[np.float32], place: NDArray[np.int64]) -> NDArray[np.uint32]:
    """(m, 3) vertex indices of a surface within the tolerance of the one that `place` (3n,) spans."""
    from meshoptimizer import simplifier

    indices = np.ascontiguousarray(place, dtype=np.uint32)
    simplified = np.empty_like(indices)
    count = simplifier.simplify(
        simplified,
        indices,
        np.ascontiguousarray(positions, dtype=np.float32),
        target_index_count=0,
        target_error=TOLERANCE,
        options=simplifier.SIMPLIFY_ERROR_ABSOLUTE,
    )
    return simplified[:count].reshape(-1, 3)


def _corners_facing(
    triangles: NDArray[np.uint32],
    positions: NDArray[np.float32],
    place: NDArray[np.int64],
    normals: NDArray[np.float32],
) -> NDArray[np.int64]:
    """For each corner of the new triangles the original one at its place whose normal is nearest to the triangle's."""
    from scipy.spatial import cKDTree

    a, b, c = positions[triangles].transpose(1, 0, 2)
    facing = np.cross(b - a, c - a)
    facing /= np.linalg.norm(facing, axis=1, keepdims=True) + np.finfo(np.float32).tiny
    # Unit vectors are at most 2 apart, so that with places 10 apart the nearest is always at the same place.
    originals = np.column_stack([10.0 * place, normals])
    wanted = np.column_stack([10.0 * triangles.ravel(), np.repeat(facing, 3, axis=0)])
    return cKDTree(originals).query(wanted)[1]
