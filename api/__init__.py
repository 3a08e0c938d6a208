"""Gofer over HTTP: parses, sends messages, renders. Holds no rule about jobs."""

from api.app import create_app

__all__ = ["create_app"]
