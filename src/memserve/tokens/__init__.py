"""Text to token ids and back, the same for every engine in this process: what local rooms stand on."""
