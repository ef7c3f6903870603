"""A backend on OpenAI's routes, in this process: each route translates to the protocol and back."""
