"""The smooth, invertible map between a patient's body and the template heart.

``to_template`` is evaluated at every voxel; its inverse, solved by fixed-point iteration, carries landmarks
and vessel courses back into the patient exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EXTENT_MM = 320.0
"""Edge of the cube around the heart's centre on which displacements are defined; they fade to its rim's value."""

FINE = 41
"""Samples per axis of a displacement field after cubic B-spline upsampling (8 mm apart)."""


def bspline_upsample(control: Tensor, size: int = FINE) -> Tensor:
    """Cubic B-spline values of control grids (C, n, n, n) on a regular grid → (C, size, size, size)."""
    count = control.shape[-1]
    position = torch.linspace(0, count - 1, size)
    offset = (position[:, None] - torch.arange(count)[None]).abs()
    near = 2 / 3 - offset**2 + offset**3 / 2
    far = (2 - offset).clamp_min(0) ** 3 / 6
    basis = torch.where(offset < 1, near, far)
    basis = (basis / basis.sum(1, keepdim=True)).to(control)
    return torch.einsum("cxyz,ax,by,dz->cabd", control, basis, basis, basis)


def sample_cube(field: Tensor, points: Tensor, extent_mm: float = EXTENT_MM) -> Tensor:
    """Trilinear values at points (…, 3) → (…, C) of ``field`` (C, n, n, n), spread over a cube around 0."""
    grid = (points * (2 / extent_mm)).flip(-1).reshape(1, -1, 1, 1, 3)
    values = F.grid_sample(field[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return values.reshape(field.shape[0], -1).T.reshape(*points.shape[:-1], field.shape[0])


@dataclass(frozen=True)
class Warp:
    """Body mm (origin at the heart's centre) ↔ template mm: ``q = centre + linear @ (p + u(p))``.

    Attributes:
        linear: (3, 3) inverse of rotation times anisotropic scale.
        centre: (3,) template point that lies at the body origin.
        displacement: (3, n, n, n) field ``u`` in mm over :data:`EXTENT_MM`.
    """

    linear: Tensor
    centre: Tensor
    displacement: Tensor

    def to_template(self, points: Tensor) -> Tensor:
        """Template coordinates of body points (…, 3)."""
        found: Tensor = (points + sample_cube(self.displacement, points)) @ self.linear.T + self.centre
        return found

    def to_body(self, points: Tensor, iterations: int = 60) -> Tensor:
        """Body coordinates of template points (…, 3); converges to float precision while the Jacobian is positive."""
        target = (points - self.centre) @ torch.linalg.inv(self.linear).T
        found = target.clone()
        for _ in range(iterations):
            found = target - sample_cube(self.displacement, found)
        body: Tensor = found
        return body

    def jacobian(self, points: Tensor, step_mm: float = 2.0) -> Tensor:
        """Central differences d template / d body at body points (N, 3) → (N, 3, 3)."""
        columns = []
        for axis in range(3):
            shift = torch.zeros(3, device=points.device)
            shift[axis] = step_mm
            columns.append((self.to_template(points + shift) - self.to_template(points - shift)) / (2 * step_mm))
        return torch.stack(columns, -1)

    def to(self, device: torch.device | str) -> Warp:
        """The same warp on another device."""
        return Warp(self.linear.to(device), self.centre.to(device), self.displacement.to(device))


def rotation(degrees: Tensor) -> Tensor:
    """Rotation matrix from angles (3,) about x, y and z in degrees, applied in that order."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    one, zero = torch.ones(()), torch.zeros(())
    x = torch.stack([one, zero, zero, zero, cos[0], -sin[0], zero, sin[0], cos[0]]).reshape(3, 3)
    y = torch.stack([cos[1], zero, sin[1], zero, one, zero, -sin[1], zero, cos[1]]).reshape(3, 3)
    z = torch.stack([cos[2], -sin[2], zero, sin[2], cos[2], zero, zero, zero, one]).reshape(3, 3)
    turn: Tensor = z @ y @ x
    return turn
