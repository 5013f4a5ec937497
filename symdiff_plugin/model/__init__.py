"""The paper: symmetrisation, its networks, and EDM's contract around them."""
