"""Floor 5: ``popctl``, the command that manages accounts."""
