"""Locust users, one file per protocol. A file dropped here is a protocol (see ``protocols.py``)."""
