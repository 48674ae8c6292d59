"""Helpers on top of actors: `ActorPool` shares work among some, `Queue` is a queue between processes."""

from actorflow.util.actor_pool import ActorPool
from actorflow.util.queue import Queue

__all__ = ["ActorPool", "Queue"]
