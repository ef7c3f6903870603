"""Where people already evaluate: each module is a model of one harness, and loads that harness alone."""
