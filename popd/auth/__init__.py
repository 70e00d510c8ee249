"""Floor 2: the credential chain: checkers, their factories for ``--auth``, the realm."""
