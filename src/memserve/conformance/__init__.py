"""The pytest suite that any backend can run.

    pytest --pyargs memserve.conformance --backend NAME --model PATH [--options k=v ...]

Each test module is one group of promises. A test asks the backend's `Capabilities` whether it applies; a
skip names the field. What a backend cannot do yet is said in `conformance.json` in its own room.
"""
