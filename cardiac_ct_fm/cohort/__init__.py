"""The digital cohort: patients that nobody had to give.

``draw_case(seed)`` makes one whole patient; :mod:`sites` makes hospitals of them, :mod:`export` writes files.
"""
