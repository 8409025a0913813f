"""The wire: one definition of every message between client and daemon."""
