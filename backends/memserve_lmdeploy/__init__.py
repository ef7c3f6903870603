"""LMDeploy TurboMind."""
