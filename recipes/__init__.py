"""Recipes: how the package's assets, weights and figures are made. They import the package, never the reverse."""
