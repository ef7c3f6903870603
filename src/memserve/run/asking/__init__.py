"""The loops that ask a generator, one engine behind a wire or one in this process."""
