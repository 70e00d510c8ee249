"""The manual, carried out: its commands and files, as they stand in ``docs/``."""
