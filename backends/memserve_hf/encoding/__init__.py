"""From texts to vectors, as the checkpoint's own modules say."""
