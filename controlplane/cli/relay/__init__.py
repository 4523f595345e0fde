"""What `corral proxy` is made of: MCP over stdio on one side, an instance's Streamable HTTP endpoint on the other.

Messages pass as the bytes that their author wrote. Owns no meaning: only what either transport needs to know of a
message is looked at. Loaded by `corral proxy` alone, as it brings Trio along.
"""
