"""The core: everything under the public face. Imports go down only: see docs/ARCHITECTURE.md."""
