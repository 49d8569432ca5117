"""``python -m cardiac_ct_fm`` is the command line ``cardiac-ct-fm``."""

from cardiac_ct_fm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
