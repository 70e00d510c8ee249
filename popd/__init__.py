"""popd: a POP3 server for people who run mail."""

__all__ = ["__version__"]

__version__ = "0.1.0"
