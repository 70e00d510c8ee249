"""``popcheck``: does a POP3 server keep to the RFCs?  A conformance suite for any of them.

It knows a server by what it says on its ports, and by what becomes of mail in a Maildir.
"""

__version__ = "1.0"
