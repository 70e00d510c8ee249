"""SASL mechanisms as steppers (RFC 4422), and what they have in common."""
