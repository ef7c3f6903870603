"""From a checkpoint to a model on a device, refused before loading where it cannot be."""
