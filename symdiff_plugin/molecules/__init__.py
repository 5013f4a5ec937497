"""A molecule: its files, its bonds, its picture."""
