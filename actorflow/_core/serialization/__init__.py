"""Values, exceptions and functions as bytes."""
