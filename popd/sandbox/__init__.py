"""What processes that serve give up before the first stranger comes: privileges, and reach."""
