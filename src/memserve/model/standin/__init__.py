"""Stand-ins for torch and transformers that know only shapes, so that real constructors can be counted.

`data/constructors.zip` holds those constructors, reduced to what decides the shape of a weight.
"""
