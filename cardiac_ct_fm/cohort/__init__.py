"""The digital cohort: patients of drawn numbers, bent from the published shapes of two real hearts; no images.

``draw_case(seed)`` makes one whole patient; :mod:`sites` makes hospitals of them, :mod:`export` writes files.
"""
