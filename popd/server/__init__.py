"""Floor 3: the Twisted driver: protocol, factory, TLS, time-outs, message streaming."""
