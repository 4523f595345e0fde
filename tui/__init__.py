"""The dashboard: a Textual program of its own that lives on the control plane's REST API and event streams.

It runs on asyncio in a process of its own and knows the server only by `controlplane.wire`: whatever it shows or
does, any other client can as well.
"""
