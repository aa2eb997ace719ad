"""RESPONDER=openai: a model behind the chat/completions protocol writes the reply.

`worker` is what a worker imports. It alone reads the environment and makes the client. The rest is plain: `prompt` and
`hints` say what the model is told, `answers` what is accepted of it, `client` asks, `replier` decides how often.
"""
