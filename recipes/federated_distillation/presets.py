"""Named settings to start from; every option on the command line goes before them."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "locations": ("site-1", "site-3", "site-6"),
        "local": True,
        "size": "smoke",
        "rounds": 2,
        "scans": 5,
        "labelled": 3,
        "looks_per_scan": 3,
        "variants": 1,
        "uncertainty_samples": 2,
        "threads": 1,
        "exp_name": "smoke",
    },
    "table": {
        "locations": ("site-1", "site-2", "site-3"),
        "test_locations": tuple(f"site-{i}" for i in range(1, 9)),
        "local": True,
        "size": "smoke",
        "rounds": 24,
        "teacher_rounds": 36,
        "epochs": 2,
        "scans": 30,
        "labelled": 20,
        "test_ratio": 0.4,
        "looks": ("root",),
        "looks_per_scan": 2,
        "variants": 6,
        "uncertainty_samples": 3,
        "threads": 1,
        "exp_name": "table",
    },
    "published": {
        "locations": ("site-1", "site-3", "site-6"),
        "test_locations": tuple(f"site-{i}" for i in range(1, 9)),
        "local": True,
        "ckpt": "cardiac_swin_tiny.synthetic",
        "size": "tiny",
        "teacher_type": "swin_unetr",
        "lr": 1e-4,
        "rounds": 10,
        "patches": 48,
        "scans": 30,
        "labelled": 20,
        "test_ratio": 0.25,
        "looks_per_scan": 2,
        "variants": 4,
        "uncertainty_samples": 3,
        "threads": 1,
        "exp_name": "published",
    },
    "demo": {
        "locations": tuple(f"site-{i}" for i in range(1, 9)),
        "local": True,
        "size": "tiny",
        "rounds": 20,
        "patches": 64,
        "scans": 40,
        "labelled": 16,
        "looks_per_scan": 2,
        "variants": 6,
        "test_on_global_updates": True,
        "exp_name": "demo",
    },
    "paper": {
        "locations": tuple(f"site-{i}" for i in range(1, 9)),
        "size": "base",
        "rounds": 100,
        "batch_size": 1,
        "looks_per_scan": 4,
        "rounds_per_job": 10,
        "quorum": 6,
        "grace_s": 600,
        "exp_name": "fedkd",
    },
}
"""Named starting points.

``smoke`` proves that all stages run, ``table`` compares all methods in two hours of one core, ``published``
goes on from the published weights at three digital hospitals, ``demo`` is digital and takes a night, ``paper`` is for
real sites.
"""
