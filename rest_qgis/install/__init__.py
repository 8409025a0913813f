"""Where the engine's own environment lies; standard library only."""
