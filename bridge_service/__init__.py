"""The bridge between an app's PostgreSQL and its bots.

`dramatiq bridge_service` imports this package for its broker and actors. They are made from the environment; nothing
connects and nothing is refused before a worker process boots.
"""

import os

import dramatiq

from bridge_service.worker.process import assemble

dramatiq.set_broker(assemble(os.environ))
