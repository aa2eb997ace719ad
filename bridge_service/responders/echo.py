"""The responder for tests and first installations: it repeats what it was told, so that a reply proves its group."""

from bridge_service.responders import Whole
from bridge_service.turns import Kind, Task


def reply(task: Task) -> str:
    """The covered messages' contents, in order, one per line, and nothing else; other turns say `bonjour`.

    A message without text is an empty line. A group with nothing to read in it is answered with `…`, because a blank
    reply would be refused and the group would stay unanswered.
    """
    if task.kind is not Kind.REPLY:
        return "bonjour"
    text = "\n".join(line.content for line in task.messages)
    return Whole(text) if text.strip() else "…"
