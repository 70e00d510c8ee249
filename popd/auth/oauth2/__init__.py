"""Bearer tokens of an OAuth 2 provider: ``--auth popd-oauth2:FILE``."""
