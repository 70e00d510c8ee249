"""What happens to mail when the machine, the disk or popd fails: proved, not promised."""
