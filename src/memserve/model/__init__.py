"""What a model is: config.json -> ModelSpec, a catalogue, checkpoints, the hub."""
