"""From a config to the layers and weights of one model, family by family."""
