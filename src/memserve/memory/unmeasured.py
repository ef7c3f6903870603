"""Until every environment has the example plug-in anew: where its copy looks for these."""

from memserve.memory.kv import forward_bytes as forward_bytes
from memserve.memory.kv import largest_context as largest_context
from memserve.memory.kv import sequence_bytes as sequence_bytes
from memserve.memory.kv import stage_caches as stage_caches
