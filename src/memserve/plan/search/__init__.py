"""Every combination of engine, release, quantization and layout: judged, weighed, ranked."""
