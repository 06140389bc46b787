"""The trio program that serves. ``main`` reads from top to bottom as its life."""
