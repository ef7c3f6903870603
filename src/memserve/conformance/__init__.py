"""The pytest suite that any backend can run.  pytest --pyargs memserve.conformance --backend NAME"""
