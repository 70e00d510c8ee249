"""popd as the mail programs of others see it."""
