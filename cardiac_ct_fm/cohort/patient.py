"""One digital patient as numbers: drawn from published distributions by sex, the same for one seed on any machine.

Sources: Hamdan et al. (CT of the aortic root, n = 506) for annulus, sinus, sinotubular junction (STJ) and coronary
heights; LVOT area n = 177; chamber volumes from CT/MRI reference tables; membranous septum n = 107 TAVI patients; root
rotation, cusps and ostia from CT anatomy series; valve calcium from contrast-CT cohorts. Pairs are (women, men).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiac_ct_fm.cohort.templates import TEMPLATE_NAMES
from cardiac_ct_fm.errors import ConfigError

Sex = Literal["F", "M"]

BY_SEX: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "annulus_mm": ((22.9, 2.2), (25.7, 2.7)),
    "sinus_mm": ((31.8, 4.2), (36.3, 3.8)),
    "stj_mm": ((26.3, 3.4), (29.8, 4.2)),
    "lca_height_mm": ((12.3, 2.4), (14.1, 2.9)),
    "rca_height_mm": ((14.8, 2.6), (17.1, 3.2)),
    "lvot_area_mm2": ((374.0, 94.0), (478.0, 131.0)),
    "lv_ml": ((98.0, 21.0), (113.0, 26.0)),
    "lv_mass_g": ((108.0, 20.0), (145.0, 29.0)),
    "rv_ml": ((148.0, 35.0), (190.0, 33.0)),
    "la_ml": ((89.0, 21.0), (103.0, 30.0)),
}
"""Published mean ± SD by sex (women, men)."""

MYOCARDIAL_DENSITY = 1.05
"""g/mL, the value with which cardiac CT and MRI convert volume to mass."""

WARPED: tuple[str, ...] = ("annulus_mm", "sinus_mm", "lvot_area_mm2", "lca_height_mm", "rca_height_mm")
OWN_SHARE = 0.85
"""These are drawn with 0.85 of their published SD: the heart's smooth deformation adds the rest (measured)."""

CUSP_DEGREES: dict[str, float] = {"RCC": 85.0, "NCC": 205.0, "LCC": 325.0}
"""Mean azimuth of the cusps in the root frame (0° left, 90° anterior), of the real template hearts."""
CUSPS_SD, CUSP_SD = 13.0, 4.0  # degrees, together and each: published against the septum 12.9–15.2°

CALCIUM_SHARE: dict[str, float] = {"NCC": 0.41, "LCC": 0.31, "RCC": 0.27}
"""Share of valve calcium per cusp (men, contrast CT)."""


@dataclass(frozen=True)
class Root:
    """The aortic root in patient mm and degrees of the root frame (origin: annulus centre, z up the aorta)."""

    annulus_mm: float
    ellipticity: float
    ellipse_deg: float
    sinus_mm: float
    stj_mm: float
    stj_height_mm: float
    lvot_area_mm2: float
    lvot_ellipticity: float
    ascending_mm: float
    cusp_deg: dict[str, float]
    cusp_size: dict[str, float]
    hinge_z_mm: dict[str, float]
    commissure_z_mm: tuple[float, float, float]
    attachment_power: float
    coaptation_mm: float
    leaflet_mm: float
    leaflet_hu: float
    opening: float
    fused: bool
    ostium_deg: dict[str, float]
    ostium_height_mm: dict[str, float]
    ostium_tilt_deg: dict[str, float]
    wall_mm: float
    septum_deg: float
    septum_top_mm: float
    septum_height_mm: float
    septum_width_mm: float
    septum_mm: float
    calcium: NDArray[np.float64]

    @property
    def septum_crest_mm(self) -> float:
        """Height of the muscular crest (MS2), below the annulus and at least 2 mm below MS1."""
        return min(-self.septum_height_mm, self.septum_top_mm - 2.0)


@dataclass(frozen=True)
class Patient:
    """Everything that was drawn for one digital patient.

    Attributes:
        seed: the integer that made it.
        sex, age: ``F``/``M``, years.
        template: name of the template heart.
        rotation_deg: (3,) heart pose; scale: (3,) anisotropic size against the template.
        controls: two B-spline control grids (3, 5, 5, 5) and (3, 9, 9, 9) of the displacement, mm.
        targets_ml: wanted volumes of LV, Myo, RV, LA, RA.
        vessel_shift: (40, 3) mm, jitter of the great vessels' courses; vessel_scale: (10,) calibre factors.
        coronary_mm: proximal lumen diameters by vessel; right_dominant.
        blood: HU by compartment; mixing: relative inhomogeneity of the right heart.
        tissue: HU of myocardium, wall, fat; fat_mm: epicardial fat thickness.
        wall_rv_mm, wall_atrium_mm: thickness of the unlabelled walls.
        root: the aortic root.
    """

    seed: int
    sex: Sex
    age: float
    template: str
    rotation_deg: NDArray[np.float64]
    scale: NDArray[np.float64]
    controls: tuple[NDArray[np.float64], NDArray[np.float64]]
    targets_ml: dict[str, float]
    vessel_shift: NDArray[np.float64]
    vessel_scale: NDArray[np.float64]
    coronary_mm: dict[str, float]
    right_dominant: bool
    blood: dict[str, float]
    mixing: float
    tissue: dict[str, float]
    fat_mm: float
    wall_rv_mm: float
    wall_atrium_mm: float
    valve_mm: float
    root: Root


def draw_patient(seed: int, sex: Sex | None = None, *, strength: float = 1.0) -> Patient:
    """Draw one patient.

    Args:
        seed: any non-negative integer; the same seed gives the same patient.
        sex: ``F`` or ``M``; drawn evenly when None.
        strength: dial of the domain randomisation of contrast and shape beyond the published spread
            (0 none, 1 as the published weights were trained, at most 2).

    Raises:
        ConfigError: a parameter is out of its range.
    """
    if seed < 0:
        raise ConfigError(f"cohort seed is {seed}; it must be 0 or larger.")
    if not 0 <= strength <= 2:
        raise ConfigError(f"cohort strength is {strength}; it must lie in 0…2.")
    if sex not in (None, "F", "M"):
        raise ConfigError(f"cohort sex is {sex!r}; choose 'F' or 'M'.")
    rng = np.random.default_rng([seed, 20250101])
    chosen: Sex = sex or ("F" if rng.random() < 0.5 else "M")
    body = rng.normal()
    column = 0 if chosen == "F" else 1

    def sized(name: str, link: float = 0.5) -> float:
        """A published measure, correlated with body size by ``link``, kept within ±2.5 SD."""
        mean, spread = BY_SEX[name][column]
        z = link * body + math.sqrt(1 - link**2) * rng.normal()
        share = OWN_SHARE if name in WARPED else 1.0
        return mean + spread * share * float(np.clip(z, -2.5, 2.5))

    annulus = sized("annulus_mm", 0.7)
    root = _draw_root(rng, annulus, sized, strength)
    size = 1.16 + 0.05 * body + (0.0 if chosen == "F" else 0.06)
    axis_tilt = rng.normal(49.4, 9.4) - 61.7
    left = rng.normal(350, 100) if rng.random() < 0.8 else rng.uniform(150, 700)
    left = float(np.clip(left, 180, 800))
    timing = rng.random()
    if timing < 0.55:
        right = rng.uniform(100, 350)
    elif timing < 0.8:
        right = left * rng.uniform(0.8, 1.3)
    else:
        right = rng.uniform(350, 350 + 450 * strength)
    return Patient(
        seed=seed,
        sex=chosen,
        age=float(np.clip(rng.normal(80, 7), 45, 97)),
        template=TEMPLATE_NAMES[int(rng.integers(len(TEMPLATE_NAMES)))],
        rotation_deg=np.array([rng.normal(0, 8), axis_tilt, rng.normal(0, 10)]) * (0.5 + 0.5 * strength),
        scale=size * np.exp(rng.normal(0, 0.06, 3)),
        controls=(rng.normal(0, 3.5, (3, 5, 5, 5)) * strength, rng.normal(0, 1.6, (3, 9, 9, 9)) * strength),
        targets_ml={
            "LV": sized("lv_ml"),
            "Myo": sized("lv_mass_g") / MYOCARDIAL_DENSITY,
            "RV": sized("rv_ml"),
            "LA": sized("la_ml", 0.2) * (1.0 + (rng.random() < 0.15) * rng.uniform(0, 0.35) * strength),
            "RA": sized("la_ml", 0.2) * 1.15,
        },
        vessel_shift=rng.normal(0, 4.0, (40, 3)),
        vessel_scale=np.exp(rng.normal(0, 0.14, 10)),
        coronary_mm=_draw_coronaries(rng, chosen),
        right_dominant=bool(rng.random() < 0.85),
        blood={
            "LV": left * rng.normal(1, 0.04),
            "LA": left * rng.normal(1, 0.06),
            "Aorta": left * rng.normal(1, 0.04),
            "RA": right * rng.normal(1, 0.1),
            "RV": right * rng.normal(1, 0.1),
            "PA": (0.5 * right + 0.5 * left if rng.random() < 0.5 else right) * rng.normal(1, 0.1),
            "SVC": right * rng.uniform(1, 3.0) if rng.random() < 0.6 else right,
            "IVC": min(right, left) * rng.uniform(0.3, 0.9),
            "coronary": left * rng.uniform(0.85, 1.0),
        },
        mixing=float(rng.uniform(0, 0.5) if rng.random() < 0.7 else rng.uniform(0.5, 1.1)),
        tissue={
            "myo": min(rng.normal(95, 15), left - 60),
            "wall": rng.uniform(30, 90),
            "fat": rng.normal(-90, 10),
        },
        fat_mm=float(rng.gamma(3.0, 1.6)),
        wall_rv_mm=float(rng.uniform(1.5, 4.0)),
        wall_atrium_mm=float(rng.uniform(1.0, 2.5)),
        valve_mm=float(rng.uniform(0.8, 2.2)),
        root=root,
    )


def _draw_root(rng: np.random.Generator, annulus: float, sized: object, strength: float) -> Root:
    """The aortic root around a given mean annulus diameter (mm)."""
    assert callable(sized)
    sinus = max(sized("sinus_mm", 0.6), annulus * 1.12)
    stj = float(np.clip(sized("stj_mm", 0.6), annulus * 0.85, sinus * 0.97))
    stj_height = float(np.clip(rng.normal(1.69, 0.18), 1.2, 2.3)) * annulus / 2
    rotate = rng.normal(0, CUSPS_SD)
    cusp_deg = {k: v + rotate + rng.normal(0, CUSP_SD) for k, v in CUSP_DEGREES.items()}
    commissures = tuple(float(c) for c in stj_height * np.clip(rng.normal(0.98, 0.07, 3), 0.8, 1.15))
    high = rng.random() < 0.08 * strength
    heights = {
        "RCA": float(np.clip(sized("rca_height_mm", 0.3) + (rng.uniform(2, 9) if high else 0), 6, 30)),
        "LCA": float(np.clip(sized("lca_height_mm", 0.3) + (rng.uniform(1, 5) if rng.random() < 0.1 else 0), 5, 26)),
    }
    right_noncoronary = (cusp_deg["RCC"] + cusp_deg["NCC"]) / 2
    return Root(
        annulus_mm=annulus,
        ellipticity=float(np.clip(rng.normal(1.28, OWN_SHARE * 0.1), 1.03, 1.6)),
        ellipse_deg=float(rng.normal(15, 15)),
        sinus_mm=sinus,
        stj_mm=stj,
        stj_height_mm=stj_height,
        lvot_area_mm2=float(np.clip(sized("lvot_area_mm2", 0.6), 0.6 * annulus**2 * 0.785, 1.25 * annulus**2 * 0.785)),
        lvot_ellipticity=float(np.clip(rng.normal(1.49, 0.2), 1.1, 2.0)),
        ascending_mm=float(np.clip(rng.normal(stj * 1.14, 2.5), stj * 0.95, 46)),
        cusp_deg=cusp_deg,
        cusp_size={k: float(v * rng.normal(1, 0.12)) for k, v in {"RCC": 1.05, "NCC": 1.0, "LCC": 0.93}.items()},
        hinge_z_mm={k: float(rng.normal(0, 1.0)) for k in CUSP_DEGREES},
        commissure_z_mm=commissures,  # type: ignore[arg-type]
        attachment_power=float(rng.uniform(1.6, 2.3)),
        coaptation_mm=float(rng.uniform(0.3, 0.6)) * stj_height,
        leaflet_mm=float(rng.uniform(0.6, 2.0)),
        leaflet_hu=float(rng.uniform(60, 170)),
        opening=float(rng.uniform(0.4, 0.85)) if rng.random() < 0.15 else 0.0,
        fused=bool(rng.random() < 0.06),
        ostium_deg={"RCA": cusp_deg["RCC"] + rng.normal(12, 9), "LCA": cusp_deg["LCC"] + rng.normal(0, 9)},
        ostium_height_mm=heights,
        ostium_tilt_deg={"RCA": float(rng.normal(5, 20)), "LCA": float(rng.normal(5, 18))},
        wall_mm=float(rng.uniform(1.2, 2.2)),
        septum_deg=float(right_noncoronary + rng.normal(0, 4)),
        septum_top_mm=float(np.clip(rng.normal(-0.5, 1.7), -4, 3)),
        septum_height_mm=float(np.clip(rng.normal(6.6, 2.0), 2.0, 13.0)),
        septum_width_mm=float(np.clip(rng.normal(10.2, 3.1), 4.0, 18.0)),
        septum_mm=float(rng.uniform(0.8, 1.8)),
        calcium=_draw_calcium(rng),
    )


def _draw_calcium(rng: np.random.Generator) -> NDArray[np.float64]:
    """Nodules (n, 8): cusp index, place along (−1…1) and across the cusp (0 centre … 1 wall), semi-axes mm, HU, turn.

    Volume above 450 HU is log-normal with median 759 mm³, σ 0.76 (contrast CT); 30 % of the cohort have none or
    a trace, as patients who are scanned for other reasons.
    """
    if rng.random() < 0.3:
        count, total = int(rng.integers(0, 3)), rng.uniform(2, 40)
    else:
        count, total = int(rng.integers(4, 26)), float(np.exp(rng.normal(math.log(759), 0.76)))
    if count == 0:
        return np.zeros((0, 8))
    share = rng.gamma(0.8, 1.0, count) + 0.05
    volume = np.minimum(total * share / share.sum(), 350.0)
    names = list(CUSP_DEGREES)
    odds = np.array([CALCIUM_SHARE[n] for n in names])
    shape = np.exp(rng.normal(0, 0.35, (count, 3)))
    shape *= (volume / (4 / 3 * math.pi * shape.prod(1)))[:, None] ** (1 / 3)
    rows = np.zeros((count, 8))
    rows[:, 0] = rng.choice(len(names), count, p=odds / odds.sum())
    rows[:, 1] = rng.uniform(-0.95, 0.95, count)
    rows[:, 2] = np.where(rng.random(count) < 0.6, rng.uniform(0.75, 1.02, count), rng.uniform(0.2, 0.9, count))
    rows[:, 3:6] = shape
    rows[:, 6] = rng.uniform(600, 1700, count)
    rows[:, 7] = rng.uniform(0, math.pi, count)
    return rows


def _draw_coronaries(rng: np.random.Generator, sex: Sex) -> dict[str, float]:
    """Proximal lumen diameters in mm (CT angiography of normal adults; women 9 % smaller)."""
    factor = 0.91 if sex == "F" else 1.0
    published = {"LM": (4.5, 0.5), "LAD": (3.7, 0.4), "LCx": (3.4, 0.5), "RCA": (3.9, 0.6)}
    drawn = {k: max(1.5, rng.normal(m, 1.4 * s)) * factor for k, (m, s) in published.items()}
    return drawn | {"PDA": 2.2 * factor, "D1": 2.0 * factor, "OM1": 2.2 * factor, "AM": 1.6 * factor}
