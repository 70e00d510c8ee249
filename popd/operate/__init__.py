"""What an administrator asks of a popd that runs."""
