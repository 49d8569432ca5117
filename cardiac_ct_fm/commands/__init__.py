"""The commands of ``cardiac-ct-fm``, one module each: arguments in, calls to the library, tables and JSON out.

A command's module imports typer at most; torch, monai and rich are imported when the command runs.
"""
