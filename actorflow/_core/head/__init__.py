"""The head role: nodes, jobs and actors. `head.py` wires, the other modules each serve one noun."""
