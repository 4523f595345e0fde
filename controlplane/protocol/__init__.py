"""The Model Context Protocol towards a child: framing, handshake, calls."""
