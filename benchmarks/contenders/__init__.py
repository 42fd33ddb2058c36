"""Who is measured: one module for each, with a class ``Contender``."""
