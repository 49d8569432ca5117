"""No bare number: what a constant of the measurements rests on, or that it is a house choice, stands below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import cardiac_ct_fm

PACKAGE = Path(cardiac_ct_fm.__file__).parent
MODULES = sorted([*PACKAGE.glob("planning/*.py"), *PACKAGE.glob("report/*.py")])


def bare_numbers(body: list[ast.stmt]) -> list[str]:
    """Names of numbers, alone or in a row of assignments, that no words follow."""
    waiting: list[str] = []
    bare: list[str] = []
    for statement in body:
        if isinstance(statement, ast.Assign) and any(isinstance(n, ast.Constant) for n in ast.walk(statement.value)):
            numbers = [n.value for n in ast.walk(statement.value) if isinstance(n, ast.Constant)]
            if all(isinstance(n, int | float) for n in numbers):
                waiting.append(ast.unparse(statement.targets[0]))
                continue
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            bare += waiting
        waiting = []
    return bare + waiting


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_number_of_the_measurements_says_what_it_rests_on(path):
    assert bare_numbers(ast.parse(path.read_text(encoding="utf-8")).body) == []


def test_a_number_without_words_is_found():
    text = 'A = 1.0\nB, C = 2, 3\n"""Both measured."""\nD = 4.0\nE = "words"\n'
    assert bare_numbers(ast.parse(text).body) == ["D"]
