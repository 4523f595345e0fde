"""The dashboard in a browser: `corral tui --web`, on loopback only, for whoever has the code from the terminal."""
